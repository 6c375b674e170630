// predict MODEL IMAGES [OPERATING_POINT]: a line for each image of a file of pixels.

#include <cstdio>
#include <exception>

#include "early_exit.hpp"

int main(int count, char** arguments) try {
  kdtoolkit::EarlyExitClassifier classifier(arguments[1]);
  if (count > 3) classifier.thresholds = classifier.point(std::stoul(arguments[3]));
  const auto& shape = classifier.package.image_shape;
  std::vector<uint8_t> pixels(shape[0] * shape[1] * shape[2]);
  std::ifstream images(arguments[2], std::ios::binary);
  while (images.read(reinterpret_cast<char*>(pixels.data()), pixels.size())) {
    const kdtoolkit::Prediction said = classifier.predict(pixels.data());
    std::printf("%s\t%d\t%.7f\t%s\n", said.label.c_str(), said.index, said.confidence,
                said.exit.c_str());
  }
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
