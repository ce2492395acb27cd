"use strict";
// Opens a lesion in NiiVue when it is asked for. The library and the volumes are in the page,
// packed; nothing is fetched.
const bytes = async (id) => {
  const packed = atob(document.getElementById(id).content.textContent.trim());
  const stream = new Blob([Uint8Array.from(packed, (char) => char.charCodeAt(0))]).stream();
  return new Response(stream.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
};

let loaded;
const library = () => (loaded ??= (async () => {
  const script = document.createElement("script");
  script.textContent = new TextDecoder().decode(await bytes("niivue"));
  document.head.append(script); // the policy knows its hash
  return window.niivue;
})());

const AXES = { axial: 2, coronal: 1, sagittal: 0 };
const RIM = 0.8; // opacity of the outline
const hasWebGl = () => document.createElement("canvas").getContext("webgl2") !== null;

const show = async (lesion) => {
  const { Niivue, NVImage, SLICE_TYPE } = await library();
  const find = (name) => lesion.querySelector(name);
  const { view, start, slices } = JSON.parse(lesion.dataset.lesion);
  const windows = JSON.parse(document.getElementById("lesions").dataset.windows);
  const viewer = new Niivue({
    isRadiologicalConvention: true, sagittalNoseLeft: true, scrollRequiresFocus: true,
    dragAndDropEnabled: false, multiplanarShowRender: 0, logLevel: "error", loadingText: "",
    fontColor: [1, 1, 1, 1],
  });
  await viewer.attachToCanvas(find("canvas"));
  const names = ["image", ...(find(".shown") ? ["before", "difference"] : []), "rim"];
  const stack = await Promise.all(names.map(async (name) =>
    NVImage.new(await bytes(`${lesion.id}-${name}`), `${name}.nii`)));
  const [image, rim] = [stack[0], stack.at(-1)];
  const top = Number(document.getElementById("lesions").dataset.difference);
  // Overlays are clear below their range, and the outline's colour would show at the rims of that.
  viewer.addColormap("opaque", { R: [0, 255], G: [0, 255], B: [0, 255], A: [255, 255], I: [0, 255] });
  for (const one of stack.slice(1, -1)) Object.assign(one, { opacity: 0, colormap: "opaque" });
  if (find(".shown")) Object.assign(stack[2], { cal_min: -top, cal_max: top });
  Object.assign(rim, { cal_min: 0, cal_max: 1, colormap: "warm", opacity: RIM });
  for (const one of stack) viewer.addVolume(one);
  const shown = () => stack[Math.max(0, names.indexOf(find(".shown")?.value))];

  let clicked = false;
  find("canvas").addEventListener("pointerdown", () => { clicked = true; });
  const axis = () => AXES[find(".plane").value] ?? AXES[view];
  const place = () => viewer.frac2vox(viewer.scene.crosshairPos);
  const go = (voxel) => {
    viewer.scene.crosshairPos = viewer.vox2frac(voxel);
    viewer.drawScene();
    tell();
  };
  const tell = () => {
    const voxel = Array.from(place(), Math.round);
    const index = voxel[axis()];
    find(".slice").value = index;
    const hu = clicked ? `${shown().getValue(...voxel)} HU where you clicked` : "click for HU";
    find("output").textContent = `slice ${index + 1} of ${slices[axis()]}; ${hu}`;
  };
  const setPlane = () => {
    const plane = find(".plane").value;
    viewer.opts.crosshairWidth = plane in AXES ? 0 : 1;
    viewer.setSliceType(plane in AXES ? SLICE_TYPE[plane.toUpperCase()] : SLICE_TYPE.MULTIPLANAR);
    find(".slice").max = slices[axis()] - 1;
    tell();
  };
  const setWindow = () => {
    const name = document.querySelector("input[name=window]:checked").id.slice(2);
    [image.cal_min, image.cal_max] = windows[name];
    if (find(".shown")) [stack[1].cal_min, stack[1].cal_max] = windows[name];
    viewer.updateGLVolume();
  };
  find(".slice").addEventListener("input", () => {
    const voxel = place();
    voxel[axis()] = Number(find(".slice").value);
    go(voxel);
  });
  find(".plane").addEventListener("change", setPlane);
  find(".overlay").addEventListener("change", () =>
    viewer.setOpacity(stack.length - 1, find(".overlay").checked ? RIM : 0));
  find(".shown")?.addEventListener("change", () => {
    for (let n = 0; n < stack.length - 1; n += 1) {
      viewer.setOpacity(n, stack[n] === shown() ? 1 : 0);
    }
    tell();
  });
  for (const input of document.querySelectorAll("input[name=window]")) {
    input.addEventListener("change", setWindow);
  }
  viewer.onLocationChange = tell;
  setWindow();
  setPlane();
  go(start);
  find("canvas").focus({ preventScroll: true }); // the wheel scrolls slices, elsewhere the page
};

for (const button of document.querySelectorAll(".lesion button")) {
  button.addEventListener("click", async () => {
    const lesion = button.closest(".lesion");
    button.remove();
    const message = lesion.querySelector(".message");
    if (!hasWebGl()) {
      message.textContent =
        "This browser has no WebGL 2, which scrolling needs. The slices above are flat pictures.";
      return;
    }
    message.textContent = "opening ...";
    try {
      lesion.querySelector(".viewer").hidden = false;
      await show(lesion);
      message.textContent = "";
    } catch (error) {
      lesion.querySelector(".viewer").hidden = true;
      message.textContent = `It cannot be shown here (${error.message}).`;
    }
  });
}
