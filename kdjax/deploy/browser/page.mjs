// The page: files in, a row for each out.

const facts = JSON.parse(document.getElementById("facts").textContent);
const find = (id) => document.getElementById(id);
const IMAGE = /\.(jpe?g|png|bmp)$/i;
let session, ort, queue = Promise.resolve(), counts = { read: 0, unknown: 0, refused: 0 };

function made(kind, text, className) {
  const one = document.createElement(kind);
  if (text !== undefined) one.textContent = text;
  if (className) one.className = className;
  return one;
}

async function logits(image) {
  const tensor = new ort.Tensor("uint8", image, [1, facts.size, facts.size, 3]);
  return (await session.run({ images: tensor })).logits.data;
}

async function start() {
  try {
    ort = await import("./ort/ort.wasm.min.mjs");
    ort.env.wasm.numThreads = 1;
    const response = await fetch("student.onnx");
    if (!response.ok) throw new Error(`student.onnx: ${response.status}`);
    const model = await response.arrayBuffer();
    if (!(await isOwn(model, facts))) throw new Error("student.onnx is of another export than this page");
    session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
    await logits(new Uint8Array(facts.size * facts.size * 3)); // the first run takes longer, and is not to be shown
  } catch (error) {
    find("state").textContent = `The model could not be started (${error.message}). Open this page by: ` +
      "python -m kdjax.deploy.browser EXPORT";
    return;
  }
  for (const input of document.querySelectorAll("input")) input.disabled = false;
  find("state").textContent = "Ready. The images stay on this computer.";
  document.body.dataset.state = "ready";
}

async function pixels(bytes, type) {
  const options = { imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none" };
  const bitmap = await createImageBitmap(new Blob([bytes], { type }), options);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

async function classified(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const refused = refusal(bytes, facts);
  if (refused) throw new Error(refused);
  let image;
  try {
    image = await pixels(bytes, file.type);
  } catch {
    throw new Error("not an image that this browser reads");
  }
  const wrong = unfit(image.data);
  if (wrong) throw new Error(wrong);
  const shown = resized(image.data, image.width, image.height, facts.size);
  const before = performance.now(), said = await logits(shown);
  const warning = unlike(image.width, image.height, facts);
  return { milliseconds: performance.now() - before, warning, ...answered(said, facts.trust) };
}

function picture(file) {
  const image = made("img");
  image.src = URL.createObjectURL(file);
  image.alt = "";
  image.onload = image.onerror = () => URL.revokeObjectURL(image.src);
  return image;
}

function drawSet(cell, said) {
  const held = said.ranked.slice(0, said.sets[find("level").value]);
  cell.textContent = held.map((k) => facts.classes[k]).join(", ");
}

function row(file, name, said) {
  const line = made("tr"), first = made("td", undefined, "what");
  first.append(picture(file), made("span", name));
  line.append(first);
  if (said instanceof Error) {
    const cell = made("td", said.message, "refused");
    cell.colSpan = 4;
    line.append(cell);
    return line;
  }
  const best = facts.classes[said.ranked[0]];
  const answer = made("td");
  answer.append(said.unknown ? made("strong", "unknown", "unknown") : made("strong", best));
  if (said.unknown) answer.append(made("small", `perhaps ${best}`));
  if (said.warning) answer.append(made("small", said.warning));
  const chances = made("td", undefined, "chances");
  for (const k of said.ranked.slice(0, 3)) {
    const one = made("div"), bar = made("meter");
    bar.value = said.probabilities[k];
    bar.title = facts.classes[k];
    one.append(bar, made("span", `${(100 * said.probabilities[k]).toFixed(1)} % ${facts.classes[k]}`));
    chances.append(one);
  }
  const set = made("td", undefined, "set");
  drawSet(set, said);
  find("level").addEventListener("change", () => drawSet(set, said));
  line.append(answer, chances, set, made("td", `${said.milliseconds.toFixed(1)} ms`));
  line.dataset.answer = JSON.stringify({ unknown: said.unknown, probabilities: said.probabilities, sets: said.sets });
  return line;
}

async function show(file, name) {
  const said = await classified(file).catch((error) => error);
  counts.read++;
  if (said instanceof Error) counts.refused++;
  else if (said.unknown) counts.unknown++;
  find("rows").append(row(file, name, said));
  find("results").hidden = false;
  find("state").textContent = `${counts.read} read, ${counts.unknown} unknown, ${counts.refused} refused.`;
}

function take(files) {
  const images = files.filter(([file, name, alone]) => alone || IMAGE.test(name));
  if (!images.length) find("state").textContent = "No images among these files: jpg, png or bmp.";
  for (const [file, name] of images) queue = queue.then(() => show(file, name));
}

async function held(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [[file, entry.fullPath.replace(/^\//, ""), false]];
  }
  const reader = entry.createReader(), files = [];
  for (;;) {  // a reader gives a hundred at a time
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return files;
    for (const one of some) files.push(...(await held(one)));
  }
}

for (const input of document.querySelectorAll("input"))
  input.addEventListener("change", () => {
    take(Array.from(input.files, (file) => [file, file.webkitRelativePath || file.name, !file.webkitRelativePath]));
    input.value = "";
  });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", async (event) => {
  event.preventDefault();
  if (!session) return;
  const entries = Array.from(event.dataTransfer.items, (item) => item.webkitGetAsEntry()).filter(Boolean);
  const files = [];
  for (const entry of entries)
    for (const [file, name] of await held(entry)) files.push([file, name, entry.isFile]);
  take(files);
});
start();
