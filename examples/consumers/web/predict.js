// What an exported model says of pictures, in a page: needs onnxruntime-web in ./ort and an export in ./model.
import * as ort from "./ort/ort.wasm.min.mjs";

const KERNELS = { // weight of a point at distance x, and how far it reaches: Pillow's filters
  bilinear: [x => Math.max(0, 1 - Math.abs(x)), 1],
  bicubic: [x => (x = Math.abs(x)) < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0, 2],
  lanczos: [x => Math.abs(x) >= 3 ? 0 : x ? 3 * Math.sin(Math.PI * x) * Math.sin(Math.PI * x / 3) / (Math.PI * x) ** 2 : 1, 3],
};

// One pass: `lines` lines of points that lie `step` apart become `size` points from low..high, averaged where it shrinks.
function pass(from, length, lines, at, low, high, size, [kernel, reach]) {
  const to = new Uint8ClampedArray(size * lines * 3), scale = (high - low) / size, wide = Math.max(1, scale);
  for (let i = 0; i < size; i++) {
    const centre = low + (i + 0.5) * scale, first = Math.max(0, Math.trunc(centre - reach * wide + 0.5));
    const last = Math.min(length, Math.trunc(centre + reach * wide + 0.5)), weights = [];
    for (let j = first; j < last; j++) weights.push(kernel((j - centre + 0.5) / wide));
    const sum = weights.reduce((a, b) => a + b, 0);
    for (let line = 0; line < lines; line++) for (let c = 0; c < 3; c++) {
      let value = 0;
      weights.forEach((w, k) => value += w * from[at.in(first + k, line) * at.wide + c]);
      to[at.out(i, line, size) * 3 + c] = value / sum; // rounded and kept within 0..255 by the array
    }
  }
  return to;
}

// uint8 RGB (height x width) of the size that the model takes: upright, cropped, resized across and then down.
export function resized({ data, width, height }, { size: [h, w], crop_fraction, resize, interpolation }) {
  const kept = resize === "squash" ? 1 : crop_fraction, kernel = KERNELS[interpolation];
  if (resize === "pad") throw new Error("a model of --view pad wants borders, which this program does not make");
  const scale = Math.max(Math.round(h / kept) / height, Math.round(w / kept) / width);
  const [across, down] = resize === "squash" ? [width, height] : [Math.min(width, w / scale), Math.min(height, h / scale)];
  const edges = [(width - across) / 2, (width + across) / 2, (height - down) / 2, (height + down) / 2];
  const [left, right, top, bottom] = edges.map(edge => Math.round(edge * 256) / 256); // as headstart rounds them
  const row = pass(data, width, height, { wide: 4, in: (x, y) => y * width + x, out: (x, y) => y * w + x },
    left, right, w, kernel);
  return pass(row, height, w, { wide: 3, in: (y, x) => y * w + x, out: (y, x) => y * w + x }, top, bottom, h, kernel);
}

async function decoded(file) { // transparent pictures on white, as headstart shows them
  const picture = await createImageBitmap(file, { colorSpaceConversion: "none" });
  const context = new OffscreenCanvas(picture.width, picture.height).getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, picture.width, picture.height);
  context.drawImage(picture, 0, 0);
  return context.getImageData(0, 0, picture.width, picture.height);
}

export async function open(folder = "model") {
  ort.env.wasm.numThreads = 1; // more need a page that is served with COOP and COEP headers
  const { about } = await (await fetch(`${folder}/export.json`)).json(), { names, rule, preprocess } = about;
  const session = await ort.InferenceSession.create(`${folder}/model.onnx`, { executionProviders: ["wasm"] });
  return async file => {
    const pixels = new ort.Tensor("uint8", new Uint8Array(resized(await decoded(file), preprocess)), [1, ...preprocess.size, 3]);
    const p = Array.from((await session.run({ pixels })).answers.data);
    const worth = p.map((v, k) => rule.costs ? -p.reduce((sum, q, t) => sum + q * rule.costs[t * p.length + k], 0)
      : v * (rule.weights ? rule.weights[k] : 1));
    const best = worth.indexOf(Math.max(...worth));
    return { label: names[best], probability: p[best] };
  };
}
