// Compiled with a stand-in for LiteRT's Interpreter alone, and never run on Android.
// Runs a packaged early-exit classifier with LiteRT's Interpreter.
//
//     val classifier = EarlyExitClassifier(File(context.filesDir, "early_exit-int8.tflite"))
//     val (label, index, confidence, exit) = classifier.predict(pixels)
//
// Decides as kdtoolkit.edge.EarlyExitClassifier of Python does. One thread at a time may use it.
// Needs com.google.ai.edge.litert:litert; org.json is a part of Android.

package kdtoolkit

import java.io.File
import java.io.IOException
import java.io.RandomAccessFile
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.zip.CRC32
import java.util.zip.ZipFile
import kotlin.math.exp
import org.json.JSONArray
import org.json.JSONObject
import org.tensorflow.lite.Interpreter

/** [confidence] is that of class [index], at the temperature of the [exit] that stopped. */
data class Prediction(val label: String, val index: Int, val confidence: Float, val exit: String)

/** [thresholds] are those of the exits but the last. */
data class OperatingPoint(
    val thresholds: List<Double>,
    val validationAccuracy: Double,
    val cost: Double
)

/** [file] was written by `kdtoolkit.export.to_early_exit`. */
class EarlyExitClassifier(file: File, options: Interpreter.Options = Interpreter.Options()) :
    AutoCloseable {
    val labels: List<String>
    val imageShape: List<Int> // height, width, channels
    val exits: List<String>
    val temperatures: List<Double>
    val costs: List<Double>
    /** Cheapest first. */
    val operatingPoints: List<OperatingPoint>
    /** In use: those of an operating point, or others as many. */
    var thresholds: List<Double>

    private val interpreter: Interpreter
    private val features: List<ByteBuffer> // of the stages but the last

    init {
        val (names, text) = ZipFile(file).use { zip -> // which passes over the graph
            Pair(zip.text("labels.txt"), zip.text("early_exit.json"))
        }
        val json = JSONObject(text)
        labels = names.removeSuffix("\n").split("\n")
        if (json.getInt("format") !in 1..3) throw IOException("$file is of another format")
        // LiteRT itself notices no damage to weights.
        if (json.getLong("crc32") != checksumOfGraph(file)) throw IOException("$file is damaged")
        imageShape = json.getJSONArray("image_shape").map { getInt(it) }
        exits = json.getJSONArray("exits").map { getString(it) }
        temperatures = json.getJSONArray("temperatures").map { getDouble(it) }
        costs = json.getJSONArray("costs").map { getDouble(it) }
        operatingPoints = json.getJSONArray("operating_points").map { index ->
            val point = getJSONObject(index)
            OperatingPoint(
                point.getJSONArray("thresholds").map { getDouble(it) },
                point.getDouble("validation_accuracy"),
                point.getDouble("cost")
            )
        }
        val chosen = json.getInt("operating_point")
        val fits = imageShape.size == 3 && exits.isNotEmpty() && temperatures.size == exits.size &&
            chosen in operatingPoints.indices &&
            operatingPoints.all { it.thresholds.size + 1 == exits.size }
        if (!fits) throw IOException("the parts of early_exit.json do not fit each other")
        thresholds = operatingPoints[chosen].thresholds
        interpreter = Interpreter(file, options)
        features = (1 until exits.size).map { stage ->
            val tensor = interpreter.getOutputTensorFromSignature("features", "stage_$stage")
            direct(tensor.numBytes())
        }
    }

    /** Takes height x width x channels bytes of the network's own size, rows from the top, RGB. */
    fun predict(pixels: ByteArray): Prediction {
        require(pixels.size == imageShape.reduce(Int::times)) { "${pixels.size} bytes of pixels" }
        val image = direct(pixels.size)
        image.put(pixels).rewind()
        var inputs = mapOf<String, Any>("image" to image)
        for (stage in exits.indices) {
            val logits = arrayOf(FloatArray(labels.size))
            val outputs = mutableMapOf<String, Any>("logits" to logits)
            val last = stage == exits.lastIndex
            if (!last) outputs["features"] = features[stage].apply { rewind() }
            interpreter.runSignature(inputs, outputs, "stage_${stage + 1}")
            var index = 0
            for (each in logits[0].indices) if (logits[0][each] > logits[0][index]) index = each
            // The softmax of the largest logit; the others are not needed.
            val temperature = temperatures[stage].toFloat()
            var sum = 0f
            for (logit in logits[0]) sum += exp((logit - logits[0][index]) / temperature)
            if (last || 1.0 / sum >= thresholds[stage]) {
                return Prediction(labels[index], index, 1 / sum, exits[stage])
            }
            inputs = mapOf("features" to features[stage].apply { rewind() })
        }
        throw IllegalStateException("a classifier has an exit")
    }

    override fun close() = interpreter.close()

    private fun direct(bytes: Int) =
        ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder())

    private fun ZipFile.text(name: String): String {
        val entry = getEntry(name) ?: throw IOException("no $name behind the graph")
        val bytes = getInputStream(entry).use { it.readBytes() }
        // ZipFile itself compares no checksums.
        val checksum = CRC32().apply { update(bytes) }.value
        if (checksum != entry.crc) throw IOException("$name is damaged")
        return bytes.toString(Charsets.UTF_8)
    }

    private fun <T> JSONArray.map(item: JSONArray.(Int) -> T): List<T> =
        (0 until length()).map { item(it) }

    /** Of all bytes before the first file of the zip. */
    private fun checksumOfGraph(file: File): Long {
        val bytes = RandomAccessFile(file, "r").use { opened ->
            ByteArray(opened.length().toInt()).also { opened.readFully(it) }
        }
        val content = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
        // What ends a zip says where its list of files starts, and each of these where the file is.
        var end = bytes.size - 22
        while (content.getInt(end) != 0x06054b50) end--
        var graph = bytes.size
        var at = content.getInt(end + 16)
        repeat(content.getShort(end + 10).toInt()) {
            graph = minOf(graph, content.getInt(at + 42))
            at += 46 + listOf(28, 30, 32).map { content.getShort(at + it).toInt() }.sum()
        }
        return CRC32().apply { update(bytes, 0, graph) }.value
    }
}
