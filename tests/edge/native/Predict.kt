// MODEL LOGITS OPERATING_POINT: a line for each image of a file of logits, native float32.

import java.io.File
import java.io.PrintStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kdtoolkit.EarlyExitClassifier
import kotlin.system.exitProcess
import org.tensorflow.lite.Interpreter

fun main(arguments: Array<String>) {
    try {
        val classifier = EarlyExitClassifier(File(arguments[0]))
        classifier.thresholds = classifier.operatingPoints[arguments[2].toInt()].thresholds
        val logits = ByteBuffer.wrap(File(arguments[1]).readBytes()).order(ByteOrder.nativeOrder())
        Interpreter.logits = logits.asFloatBuffer()
        Interpreter.stages = classifier.exits.size
        val pixels = ByteArray(classifier.imageShape.reduce(Int::times))
        val images = logits.capacity() / (4 * classifier.exits.size * classifier.labels.size)
        val out = PrintStream(System.out, true, "UTF-8")
        repeat(images) { image ->
            Interpreter.image = image
            val (label, index, confidence, exit) = classifier.predict(pixels)
            out.println("$label\t$index\t$confidence\t$exit")
        }
    } catch (error: Exception) {
        System.err.println(error)
        exitProcess(1)
    }
}
