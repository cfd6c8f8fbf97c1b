// Run a file with a heatmap in onnxruntime-web: node FILE FOLDER MODEL INPUT SHAPE DATA RESULT
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const [folder, model, input, shape, data, result] = process.argv.slice(2);
const ort = createRequire(folder + "/")("onnxruntime-web");
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";
const session = await ort.InferenceSession.create(readFileSync(model), {
  executionProviders: ["wasm"],
});
const bytes = readFileSync(data);
const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
const tensor = new ort.Tensor("float32", values, JSON.parse(shape));
const { heatmap } = await session.run({ [input]: tensor });
writeFileSync(result, Buffer.from(heatmap.data.buffer, heatmap.data.byteOffset, heatmap.data.byteLength));
console.log(JSON.stringify(heatmap.dims));
