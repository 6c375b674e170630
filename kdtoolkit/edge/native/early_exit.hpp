// Runs a packaged early-exit classifier with LiteRT's C API. C++17, LiteRT 2.3, nlohmann/json.
//
//     kdtoolkit::EarlyExitClassifier classifier("early_exit-int8.tflite");
//     kdtoolkit::Prediction said = classifier.predict(pixels);
//
// Decides as kdtoolkit.edge.EarlyExitClassifier of Python does. One thread at a time may use it.
// Whatever is wrong is a std::runtime_error.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "litert/c/litert_common.h"
#include "litert/c/litert_compiled_model.h"
#include "litert/c/litert_environment.h"
#include "litert/c/litert_model.h"
#include "litert/c/litert_options.h"
#include "litert/c/litert_tensor_buffer.h"

namespace kdtoolkit {

struct Prediction {
  std::string label;
  int index;         // of the most probable class
  float confidence;  // its probability at the exit's temperature
  std::string exit;  // that stopped
};

struct OperatingPoint {
  std::vector<double> thresholds;  // of the exits but the last
  double validation_accuracy, cost;
};

// What lies in the zip behind the graph, which stores its files as they are.
struct Package {
  std::vector<std::string> labels, exits;
  std::vector<int> image_shape;  // height, width, channels
  std::vector<double> temperatures, costs;
  std::vector<OperatingPoint> operating_points;
  size_t operating_point;

  explicit Package(const std::string& file) {
    size_t graph = file.size();
    std::istringstream names(associated(file, "labels.txt", &graph));
    for (std::string line; std::getline(names, line);) labels.push_back(line);
    try {
      const auto json = nlohmann::json::parse(associated(file, "early_exit.json", &graph));
      if (json.at("format") < 1 || json.at("format") > 3) throw std::runtime_error("its format");
      // LiteRT itself notices no damage to weights.
      if (json.at("crc32") != crc32(file, graph)) throw std::runtime_error("its bytes are damaged");
      json.at("exits").get_to(exits);
      json.at("image_shape").get_to(image_shape);
      json.at("temperatures").get_to(temperatures);
      json.at("costs").get_to(costs);
      json.at("operating_point").get_to(operating_point);
      for (const auto& point : json.at("operating_points"))
        operating_points.push_back({point.at("thresholds"), point.at("validation_accuracy"),
                                    point.at("cost")});
    } catch (const nlohmann::json::exception& error) {
      throw std::runtime_error(std::string("early_exit.json is not valid: ") + error.what());
    }
    bool fits = image_shape.size() == 3 && !exits.empty() && temperatures.size() == exits.size() &&
                operating_point < operating_points.size();
    for (const auto& point : operating_points)
      fits = fits && point.thresholds.size() + 1 == exits.size();
    if (!fits) throw std::runtime_error("the parts of early_exit.json do not fit each other");
  }

 private:
  // A file of the zip; `graph` becomes no larger than where the first of them starts.
  static std::string associated(const std::string& file, const std::string& name, size_t* graph) {
    const size_t end = file.rfind("PK\5\6");
    if (end == std::string::npos) throw std::runtime_error("no zip behind its graph");
    if (end + 22 + number(file, end + 20, 2) != file.size())
      throw std::runtime_error("the zip behind its graph is cut short");
    size_t at = number(file, end + 16, 4);
    std::string found;
    bool any = false;
    for (size_t left = number(file, end + 10, 2); left > 0; --left) {
      const size_t length = number(file, at + 28, 2), local = number(file, at + 42, 4);
      *graph = std::min(*graph, local);
      if (name == file.substr(std::min(at + 46, file.size()), length)) {
        if (number(file, at + 10, 2) != 0) throw std::runtime_error(name + " is compressed");
        const size_t start = local + 30 + number(file, local + 26, 2) + number(file, local + 28, 2);
        found = file.substr(std::min(start, file.size()), number(file, at + 20, 4));
        if (crc32(found, found.size()) != number(file, at + 16, 4))
          throw std::runtime_error(name + " is damaged");
        any = true;
      }
      at += 46 + length + number(file, at + 30, 2) + number(file, at + 32, 2);
    }
    if (!any) throw std::runtime_error("no " + name + " behind its graph");
    return found;
  }

  static uint32_t number(const std::string& file, size_t at, int bytes) {
    if (at + bytes > file.size()) throw std::runtime_error("the zip behind its graph is cut short");
    uint32_t value = 0;
    while (bytes-- > 0) value = value << 8 | static_cast<uint8_t>(file[at + bytes]);
    return value;
  }

  static uint32_t crc32(const std::string& bytes, size_t count) {
    uint32_t table[256], value = 0xFFFFFFFF;
    for (uint32_t index = 0; index < 256; ++index) {
      table[index] = index;
      for (int bit = 0; bit < 8; ++bit)
        table[index] = table[index] >> 1 ^ (table[index] & 1 ? 0xEDB88320 : 0);
    }
    for (size_t index = 0; index < count; ++index)
      value = value >> 8 ^ table[(value ^ static_cast<uint8_t>(bytes[index])) & 0xFF];
    return ~value;
  }
};

class EarlyExitClassifier {
 public:
  explicit EarlyExitClassifier(const std::string& path)
      : file_(read(path)), package(file_), thresholds(point(package.operating_point)) {
    check(LiteRtCreateEnvironment(0, nullptr, keep(environment_)), "environment");
    check(LiteRtCreateModelFromBuffer(environment_.get(), file_.data(), file_.size(), keep(model_)),
          "graphs");
    check(LiteRtCreateOptions(keep(options_)), "options");
    check(LiteRtSetOptionsHardwareAccelerators(options_.get(), kLiteRtHwAcceleratorCpu), "CPU");
    check(LiteRtCreateCompiledModel(environment_.get(), model_.get(), options_.get(),
                                    keep(compiled_)),
          "graphs");
    for (size_t number = 0; number < package.exits.size(); ++number)
      stages_.push_back(stage("stage_" + std::to_string(number + 1)));
    size_t bytes = 1;
    for (const int size : package.image_shape) bytes *= size;
    if (bytes_of(stages_[0].input) != bytes)
      throw std::runtime_error("its image_shape is not that of its graph");
    for (const Stage& each : stages_)
      if (bytes_of(each.logits) != package.labels.size() * sizeof(float))
        throw std::runtime_error("its labels are not as many as its classes");
  }

  // Pixels are height x width x channels bytes of the network's own size, rows from the top, RGB.
  Prediction predict(const uint8_t* pixels) {
    Locked image(stages_[0].input, kLiteRtTensorBufferLockModeWrite);
    std::memcpy(image.data, pixels, bytes_of(stages_[0].input));
    image.release();
    for (size_t number = 0;; ++number) {
      Stage& stage = stages_[number];
      check(LiteRtRunCompiledModel(compiled_.get(), stage.index, 1, &stage.input,
                                   stage.outputs.size(), stage.outputs.data()),
            "run");
      Locked locked(stage.logits, kLiteRtTensorBufferLockModeRead);
      const float* logits = static_cast<const float*>(locked.data);
      const float* end = logits + package.labels.size();
      const float* largest = std::max_element(logits, end);
      float sum = 0;  // of the softmax' powers, that of the largest logit being 1
      for (const float* each = logits; each < end; ++each)
        sum += std::exp((*each - *largest) / static_cast<float>(package.temperatures[number]));
      const bool last = number + 1 == stages_.size();
      if (last || 1.0 / sum >= thresholds[number]) {
        const int index = static_cast<int>(largest - logits);
        return {package.labels[index], index, 1 / sum, package.exits[number]};
      }
    }
  }

  // Of an operating point, cheapest first.
  const std::vector<double>& point(size_t index) const {
    return package.operating_points.at(index).thresholds;
  }

 private:
  template <typename Handle, void (*destroy)(Handle)>
  struct Destroy {
    void operator()(Handle handle) const { destroy(handle); }
  };
  template <typename Handle, void (*destroy)(Handle)>
  using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroy<Handle, destroy>>;
  using Buffer = Owned<LiteRtTensorBuffer, LiteRtDestroyTensorBuffer>;

  // What a function that makes something writes it to.
  template <typename Pointer>
  class Keep {
   public:
    explicit Keep(Pointer& owner) : owner_(owner) {}
    ~Keep() { owner_.reset(made_); }
    operator typename Pointer::pointer*() { return &made_; }

   private:
    Pointer& owner_;
    typename Pointer::pointer made_ = nullptr;
  };
  template <typename Pointer>
  static Keep<Pointer> keep(Pointer& owner) {
    return Keep<Pointer>(owner);
  }

  struct Locked {
    Locked(LiteRtTensorBuffer buffer, LiteRtTensorBufferLockMode mode) : buffer(buffer) {
      check(LiteRtLockTensorBuffer(buffer, &data, mode), "tensor");
    }
    ~Locked() { release(); }
    void release() {
      if (buffer) LiteRtUnlockTensorBuffer(buffer);
      buffer = nullptr;
    }
    LiteRtTensorBuffer buffer;
    void* data = nullptr;
  };

  struct Stage {
    size_t index;
    LiteRtTensorBuffer input, logits;
    std::vector<LiteRtTensorBuffer> outputs;
  };

  Stage stage(const std::string& key) {
    LiteRtSignature signature = nullptr;
    LiteRtParamIndex count = 0, index = 0, outputs = 0;
    check(LiteRtGetNumModelSignatures(model_.get(), &count), "signatures");
    for (;; ++index) {
      if (index == count) throw std::runtime_error("its graphs have no signature " + key);
      const char* name = nullptr;
      check(LiteRtGetModelSignature(model_.get(), index, &signature), "signatures");
      check(LiteRtGetSignatureKey(signature, &name), "signatures");
      if (key == name) break;
    }
    Stage made{index, features_, nullptr, {}};  // the features of the stage before, not copied
    if (stages_.empty()) {
      LiteRtTensor tensor = nullptr;
      LiteRtTensorBufferRequirements needed = nullptr;
      check(LiteRtGetSignatureInputTensorByIndex(signature, 0, &tensor), "image");
      check(LiteRtGetCompiledModelInputBufferRequirements(compiled_.get(), index, 0, &needed),
            "image");
      made.input = buffer(tensor, needed);
    }
    if (made.input == nullptr)
      throw std::runtime_error("the stage before " + key + " has no features");
    features_ = nullptr;
    check(LiteRtGetNumSignatureOutputs(signature, &outputs), "outputs");
    for (LiteRtParamIndex output = 0; output < outputs; ++output) {
      const char* name = nullptr;
      LiteRtTensor tensor = nullptr;
      LiteRtTensorBufferRequirements needed = nullptr;
      check(LiteRtGetSignatureOutputName(signature, output, &name), "outputs");
      check(LiteRtGetSignatureOutputTensorByIndex(signature, output, &tensor), "outputs");
      check(LiteRtGetCompiledModelOutputBufferRequirements(compiled_.get(), index, output, &needed),
            "outputs");
      made.outputs.push_back(buffer(tensor, needed));
      if (std::string(name) == "logits") made.logits = made.outputs.back();
      if (std::string(name) == "features") features_ = made.outputs.back();
    }
    if (made.logits == nullptr) throw std::runtime_error(key + " has no logits");
    return made;
  }

  LiteRtTensorBuffer buffer(LiteRtTensor tensor, LiteRtTensorBufferRequirements needed) {
    LiteRtRankedTensorType type;
    check(LiteRtGetRankedTensorType(tensor, &type), "shape");
    buffers_.emplace_back();
    check(LiteRtCreateManagedTensorBufferFromRequirements(environment_.get(), &type, needed,
                                                          keep(buffers_.back())),
          "tensor");
    return buffers_.back().get();
  }

  static size_t bytes_of(LiteRtTensorBuffer buffer) {
    size_t bytes = 0;
    check(LiteRtGetTensorBufferPackedSize(buffer, &bytes), "tensor");
    return bytes;
  }

  static void check(LiteRtStatus status, const char* what) {
    if (status != kLiteRtStatusOk)
      throw std::runtime_error(std::string("LiteRT, ") + what + ": status " +
                               std::to_string(static_cast<int>(status)));
  }

  static std::string read(const std::string& path) {
    std::ifstream stream(path, std::ios::binary);
    if (!stream) throw std::runtime_error("cannot open " + path);
    return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  }

  std::string file_;  // which LiteRT reads its weights from
  Owned<LiteRtEnvironment, LiteRtDestroyEnvironment> environment_;
  Owned<LiteRtModel, LiteRtDestroyModel> model_;
  Owned<LiteRtOptions, LiteRtDestroyOptions> options_;
  Owned<LiteRtCompiledModel, LiteRtDestroyCompiledModel> compiled_;
  std::vector<Buffer> buffers_;
  std::vector<Stage> stages_;
  LiteRtTensorBuffer features_ = nullptr;

 public:
  const Package package;
  std::vector<double> thresholds;  // in use; those of an operating point, or others as many
};

}  // namespace kdtoolkit
