// Runs the integer file: first on the vectors that were shipped beside it, then on what is drawn.

import * as ort from "./ort.wasm.min.mjs";
import { levels, numDifferent, spot } from "./levels.mjs";

ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = "./";

const shipped = await (await fetch("vectors.json")).json();
const session = await ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] });

async function logits(batch, count) {
  const tensor = new ort.Tensor("uint8", batch, [count, ...shipped.shape]);
  const results = await session.run({ [shipped.input]: tensor });
  return results[shipped.output].data;
}

const found = await logits(Uint8Array.from(shipped.inputs.flat()), shipped.inputs.length);
const wanted = shipped.outputs.flat();
const different = numDifferent(found, wanted);
document.getElementById("status").textContent =
  `${different} of ${wanted.length} outputs of the test vectors differ from the program that was validated.`;

const pixels = new Float32Array(64); // in [0, 1]
const canvas = document.getElementById("pad");
const context = canvas.getContext("2d");

async function show() {
  const image = context.createImageData(8, 8);
  pixels.forEach((value, i) => image.data.set([255 * value, 255 * value, 255 * value, 255], 4 * i));
  context.putImageData(image, 0, 0);
  const row = await logits(levels(pixels, shipped.scale, shipped.zeroPoint), 1);
  const best = row.indexOf(Math.max(...row));
  document.getElementById("logits").innerHTML = [...row]
    .map((logit, i) => `<tr class="${i === best ? "best" : ""}"><td>${shipped.labels[i]}</td><td>${logit}</td></tr>`)
    .join("");
}

function draw(event) {
  if (event.buttons === 0) return;
  const box = canvas.getBoundingClientRect();
  const x = (8 * (event.clientX - box.left)) / box.width - 0.5;
  const y = (8 * (event.clientY - box.top)) / box.height - 0.5;
  spot(pixels, x, y);
  show();
}

canvas.addEventListener("pointerdown", draw);
canvas.addEventListener("pointermove", draw);

document.getElementById("clear").addEventListener("click", () => {
  pixels.fill(0);
  show();
});

document.getElementById("example").addEventListener("click", () => {
  const one = shipped.inputs[Math.floor(Math.random() * shipped.inputs.length)];
  pixels.set(one.map((level) => (level - shipped.zeroPoint) * shipped.scale));
  show();
});

document.getElementById("example").click();
