// `node benchmarks/compare_files.mjs PACKAGES FOLDER`: what compare_files.py does, with onnxruntime-web in WebAssembly.
// PACKAGES is the folder that onnxruntime-web was installed in.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const ARRAYS = {
  int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array,
  int64: BigInt64Array, uint64: BigUint64Array, float32: Float32Array, float64: Float64Array,
};

const [packages, folder] = process.argv.slice(2);
const require = createRequire(join(resolve(packages), "package.json"));
const ort = await import(pathToFileURL(require.resolve("onnxruntime-web")));
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";

function read(tensor) {
  const bytes = readFileSync(join(folder, tensor.file));
  const data = new ARRAYS[tensor.type](new Uint8Array(bytes).buffer);  // a copy, aligned for any type
  return new ort.Tensor(tensor.type, data, tensor.shape);
}

function numDifferent(got, want) {
  if (got.type !== want.type || got.dims.join() !== want.dims.join()) return want.data.length;
  return want.data.reduce((count, value, i) => count + (got.data[i] !== value), 0);
}

async function compareCase({ model, inputs, outputs }) {
  const feed = Object.fromEntries(inputs.map((tensor) => [tensor.name, read(tensor)]));
  let results;
  try {
    const session = await ort.InferenceSession.create(join(folder, model), { executionProviders: ["wasm"] });
    results = await session.run(feed, outputs.map((tensor) => tensor.name));
    await session.release();
  } catch (error) {
    return { error: String(error.message ?? error).trim().split("\n")[0] };
  }
  const expected = outputs.map(read);
  return {
    different: expected.map((want, i) => numDifferent(results[outputs[i].name], want)).reduce((a, b) => a + b, 0),
    compared: expected.map((want) => want.data.length).reduce((a, b) => a + b, 0),
  };
}

const cases = {};
for (const each of JSON.parse(readFileSync(join(folder, "cases.json")))) cases[each.name] = await compareCase(each);
console.log(JSON.stringify({ runtime: `onnxruntime-web ${ort.env.versions.web}`, cases }));
