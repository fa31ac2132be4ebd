// From the pixels of an image to an answer, as kdjax.deploy.predict has them. Nothing here knows a page.

const BITS = 22, REACH = 3;

// The weights of Pillow's Lanczos filter along one axis, whole numbers as there: for each target cell the first source
// cell that it reads, and the weights from there on.
export function lanczos(source, target) {
  const scale = source / target, wide = Math.max(scale, 1), support = REACH * wide;
  const sinc = (x) => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));
  const filter = (x) => (x >= -REACH && x < REACH ? sinc(x) * sinc(x / REACH) : 0);
  return Array.from({ length: target }, (_, cell) => {
    const center = (cell + 0.5) * scale;
    const first = Math.max(Math.trunc(center - support + 0.5), 0);
    const end = Math.min(Math.trunc(center + support + 0.5), source);
    const weights = [];
    for (let x = first; x < end; x++) weights.push(filter((x - center + 0.5) / wide));
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: weights.map((w) => Math.trunc((w / sum) * 2 ** BITS + (w < 0 ? -0.5 : 0.5))) };
  });
}

// RGB bytes of an image, squeezed along one axis: across its columns or down its rows. `step` bytes are a pixel.
function squeezed(bytes, width, height, step, cells, across) {
  const wide = across ? cells.length : width, high = across ? height : cells.length, apart = across ? step : width * step;
  const half = 2 ** (BITS - 1), round = (sum) => Math.min(Math.max(Math.floor((sum + half) / 2 ** BITS), 0), 255);
  const result = new Uint8Array(wide * high * 3);
  for (let y = 0; y < high; y++)
    for (let x = 0; x < wide; x++) {
      const { first, weights } = cells[across ? x : y];
      const start = across ? y * width + first : first * width + x;
      for (let band = 0; band < 3; band++) {
        let sum = 0;
        for (let k = 0; k < weights.length; k++) sum += weights[k] * bytes[start * step + k * apart + band];
        result[(y * wide + x) * 3 + band] = round(sum);
      }
    }
  return result;
}

// RGBA bytes of an image as RGB bytes of size x size px, each pass rounded. Columns come first, but in tall images rows
// do, as in Pillow from version 13 on.
export function resized(rgba, width, height, size) {
  const columns = lanczos(width, size), rows = lanczos(height, size);
  if (height - size > Math.max(2 * (width - size), 0))
    return squeezed(squeezed(rgba, width, height, 4, rows, false), width, size, 3, columns, true);
  return squeezed(squeezed(rgba, width, height, 4, columns, true), size, height, 3, rows, false);
}

// Whether the fourth channel of RGBA values is a mask, nearly all 0 or 255; see is_mask in kdjax/data/pixels.py. A canvas
// multiplies colors by it and back, which a band of its own, such as near infrared, would spoil.
export function isMask(rgba) {
  let partly = 0;
  for (let k = 3; k < rgba.length; k += 4) partly += rgba[k] > 0 && rgba[k] < 255;
  return partly <= 0.25 * (rgba.length / 4);
}

// Why the RGBA values of an image are refused, or null: those of kdjax.deploy.predict are refused alike.
export function unfit(rgba) {
  if (!isMask(rgba)) return "its fourth channel is no mask: use python -m kdjax.deploy.predict";
  for (let k = 3; k < rgba.length; k += 4) if (rgba[k] > 0) return null;
  return "no pixel holds data";
}

// Why the bytes of a file are refused before a browser decodes them, or null: browsers make 8 bits of 16 without a word.
export function refusal(bytes, facts) {
  const png = [0x89, 0x50, 0x4e, 0x47].every((byte, k) => bytes[k] === byte);
  if (png && bytes[24] === 16) return "a PNG of 16 bits, which browsers cut to 8: use kdjax.deploy.predict";
  if (facts.deep) return "training had no 8-bit images: use kdjax.deploy.predict";
  return null;
}

// What is said of an image that shows far more or less than a training tile, or null; see kdjax.deploy.input_warnings.
export function unlike(width, height, facts) {
  const side = Math.sqrt(width * height), expected = facts.tile_px;
  if (!expected || (side >= expected / 4 && side <= expected * 4)) return null;
  const [shown, tile] = [side, expected].map((value) => Number(value.toPrecision(4)));
  return `${shown} px for ${tile} of a training tile: the answer is one for all of it`;
}

// Whether the bytes of a model are those that the page was written for; beside another one it would name wrong classes.
// Pages that come neither from this machine nor by HTTPS have no digests: there it is taken for the right one.
export async function isOwn(model, facts) {
  if (!globalThis.crypto?.subtle) return true;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", model));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") === facts.sha256;
}

// What logits say by the trust of the file: see kdjax.deploy.trust. `ranked` are classes, the most probable first; `sets`
// says by level how many of them are in the prediction set.
export function answered(logits, trust) {
  const scaled = Array.from(logits, (value) => value / trust.temperature), most = Math.max(...scaled);
  const total = scaled.reduce((sum, value) => sum + Math.exp(value - most), 0);
  const probabilities = scaled.map((value) => Math.exp(value - most) / total);
  if (!Array.from(logits).every(Number.isFinite)) throw new Error("the model's logits are not finite: export it again");
  const ranked = probabilities.map((_, k) => k).sort((a, b) => probabilities[b] - probabilities[a] || a - b);
  const top = Math.max(...logits);
  const energy = -(top + Math.log(Array.from(logits).reduce((sum, value) => sum + Math.exp(value - top), 0)));
  const sets = {};
  for (const [level, limit] of Object.entries(trust.limits)) {
    let before = 0;
    sets[level] = ranked.filter((k) => {
      const held = before <= limit;
      before = Math.min(before + probabilities[k], 1); // rounding may take a sum beyond 1, the limit of all classes
      return held;
    }).length;
  }
  const unknown = probabilities[ranked[0]] < trust.least_confidence || energy > trust.most_energy;
  return { probabilities, ranked, sets, unknown };
}
