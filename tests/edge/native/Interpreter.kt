// Stands in for LiteRT's Interpreter: it runs no graph, what it returns is given.

package org.tensorflow.lite

import java.io.File
import java.nio.FloatBuffer

@Suppress("UNUSED_PARAMETER", "UNCHECKED_CAST")
class Interpreter(file: File, options: Options) : AutoCloseable {
    class Options
    class Tensor {
        fun numBytes() = 4
    }

    fun getOutputTensorFromSignature(output: String, signature: String) = Tensor()

    fun runSignature(inputs: Map<String, Any>, outputs: Map<String, Any>, signature: String) {
        val stage = signature.removePrefix("stage_").toInt() - 1
        check(inputs.keys == setOf(if (stage == 0) "image" else "features"))
        check(("features" in outputs) == (stage < stages - 1))
        val row = (outputs.getValue("logits") as Array<FloatArray>)[0]
        logits.position((image * stages + stage) * row.size)
        logits.get(row)
    }

    override fun close() = Unit

    companion object {
        lateinit var logits: FloatBuffer // images x stages x classes
        var stages = 0
        var image = 0 // that is classified
    }
}
