// Not compiled here. Runs a packaged early-exit classifier with TensorFlowLiteSwift's Interpreter.
//
//     let classifier = try EarlyExitClassifier(path: path)  // of early_exit-int8.tflite
//     let prediction = try classifier.predict(pixels)
//
// Decides as kdtoolkit.edge.EarlyExitClassifier of Python does. One thread at a time may use it.
// Needs the pod TensorFlowLiteSwift, of a version that has signature runners.

import Foundation
import TensorFlowLite

public struct Prediction {
  public let label: String
  public let index: Int
  /// The probability of the class at the temperature of the exit that stopped.
  public let confidence: Float
  public let exit: String
}

public struct OperatingPoint: Decodable {
  /// Of the exits but the last.
  public let thresholds: [Double]
  public let validation_accuracy: Double
  public let cost: Double
}

public enum EarlyExitError: Error {
  case damaged(String)
  case pixels(String)
}

/// What lies in the zip behind the graph, which stores its files as they are.
public struct Parts: Decodable {
  public let format: Int
  public let crc32: UInt32
  public let image_shape: [Int]  // height, width, channels
  public let exits: [String]
  public let temperatures: [Double]
  public let costs: [Double]
  public let operating_points: [OperatingPoint]
  public let operating_point: Int
}

public final class EarlyExitClassifier {
  public let labels: [String]
  public let parts: Parts
  /// In use: those of an operating point, or others as many.
  public var thresholds: [Double]

  private let stages: [SignatureRunner]

  /// Opens a file that `kdtoolkit.export.to_early_exit` wrote.
  public init(path: String, options: Interpreter.Options? = nil) throws {
    let file = try [UInt8](Data(contentsOf: URL(fileURLWithPath: path)))
    let (files, graph) = try associated(file)
    guard let names = files["labels.txt"], let json = files["early_exit.json"] else {
      throw EarlyExitError.damaged("no labels.txt and early_exit.json behind the graph")
    }
    let read = try JSONDecoder().decode(Parts.self, from: Data(json))
    guard (1...3).contains(read.format) else { throw EarlyExitError.damaged("another format") }
    // LiteRT itself notices no damage to weights.
    guard read.crc32 == checksum(file[..<graph]) else {
      throw EarlyExitError.damaged("the graph is damaged")
    }
    let exits = read.exits.count
    guard exits > 0, read.operating_points.indices.contains(read.operating_point),
      read.temperatures.count == exits,
      read.operating_points.allSatisfy({ $0.thresholds.count + 1 == exits })
    else { throw EarlyExitError.damaged("the parts of early_exit.json do not fit each other") }
    let interpreter = try Interpreter(modelPath: path, options: options)
    stages = try (1...exits).map { try interpreter.signatureRunner(with: "stage_\($0)") }
    labels = String(decoding: names, as: UTF8.self).split(separator: "\n").map(String.init)
    thresholds = read.operating_points[read.operating_point].thresholds
    parts = read
  }

  /// Takes height x width x channels bytes of the network's own size, rows from the top, RGB.
  public func predict(_ pixels: Data) throws -> Prediction {
    guard pixels.count == parts.image_shape.reduce(1, *) else {
      throw EarlyExitError.pixels("\(pixels.count) bytes")
    }
    var inputs = ["image": pixels]
    for (number, stage) in stages.enumerated() {
      try stage.invoke(with: inputs)
      let logits = try stage.output(named: "logits").data.withUnsafeBytes {
        Array($0.bindMemory(to: Float.self))
      }
      guard logits.count == labels.count, let largest = logits.max(),
        let index = logits.firstIndex(of: largest)
      else { throw EarlyExitError.damaged("\(labels.count) labels, \(logits.count) logits") }
      // The softmax of the largest logit; the others are not needed.
      let temperature = Float(parts.temperatures[number])
      let sum = logits.reduce(Float(0)) { $0 + exp(($1 - largest) / temperature) }
      let last = number + 1 == stages.count
      if last || 1 / Double(sum) >= thresholds[number] {
        return Prediction(
          label: labels[index], index: index, confidence: 1 / sum, exit: parts.exits[number])
      }
      inputs = ["features": try stage.output(named: "features").data]
    }
    throw EarlyExitError.damaged("no exits")
  }
}

/// The files of the zip by their names, and where the first of them starts.
private func associated(_ file: [UInt8]) throws -> (
  files: [String: ArraySlice<UInt8>], graph: Int
) {
  func number(_ at: Int, _ bytes: Int) throws -> Int {
    guard at >= 0, at + bytes <= file.count else { throw EarlyExitError.damaged("cut short") }
    return (0..<bytes).reduce(0) { $0 | Int(file[at + $1]) << (8 * $1) }
  }
  var end = file.count - 22
  while try number(end, 4) != 0x0605_4b50 { end -= 1 }
  var at = try number(end + 16, 4)
  var files: [String: ArraySlice<UInt8>] = [:]
  var graph = file.count
  let count = try number(end + 10, 2)
  for _ in 0..<count {
    let length = try number(at + 28, 2)
    let local = try number(at + 42, 4)
    let start = try local + 30 + number(local + 26, 2) + number(local + 28, 2)
    let size = try number(at + 20, 4)
    guard try number(at + 10, 2) == 0, start + size <= file.count, at + 46 + length <= file.count
    else { throw EarlyExitError.damaged("the zip behind the graph") }
    let content = file[start..<(start + size)]
    guard try Int(checksum(content)) == number(at + 16, 4) else {
      throw EarlyExitError.damaged("the zip behind the graph")
    }
    files[String(decoding: file[(at + 46)..<(at + 46 + length)], as: UTF8.self)] = content
    graph = min(graph, local)
    at = try at + 46 + length + number(at + 30, 2) + number(at + 32, 2)
  }
  return (files, graph)
}

/// CRC-32, as zip files have it.
private func checksum(_ bytes: ArraySlice<UInt8>) -> UInt32 {
  let table: [UInt32] = (0..<256).map { index in
    (0..<8).reduce(UInt32(index)) { value, _ in value >> 1 ^ (value & 1 == 1 ? 0xEDB8_8320 : 0) }
  }
  return ~bytes.reduce(~UInt32(0)) { $0 >> 8 ^ table[Int(($0 ^ UInt32($1)) & 0xFF)] }
}
