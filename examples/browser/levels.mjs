// What needs no browser: from pixels to levels, the pen, and the comparison.

// The levels of real numbers: divided in float32, rounded half to even, clipped, as the file's metadata say.
export function levels(pixels, scale, zeroPoint) {
  const step = Math.fround(scale);
  return Uint8Array.from(pixels, (x) => {
    const level = roundHalfToEven(Math.fround(Math.fround(x) / step)) + zeroPoint;
    return Math.min(255, Math.max(0, level));
  });
}

export function roundHalfToEven(x) {
  const low = Math.floor(x);
  const rest = x - low;
  if (rest !== 0.5) return Math.round(x);
  return low % 2 === 0 ? low : low + 1;
}

// A soft spot of the pen on an image of 8 by 8 pixels.
export function spot(pixels, x, y) {
  for (let i = 0; i < 64; i++) {
    const distance = Math.hypot((i % 8) - x, Math.floor(i / 8) - y);
    pixels[i] = Math.max(pixels[i], Math.min(1, 1.35 - distance));
  }
}

// How many numbers of two lists differ; all do if one is longer.
export function numDifferent(found, wanted) {
  if (found.length !== wanted.length) return Math.max(found.length, wanted.length);
  let count = 0;
  for (let i = 0; i < found.length; i++) count += Number(found[i]) !== Number(wanted[i]) ? 1 : 0;
  return count;
}
