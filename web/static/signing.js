// Fills a correction's region: from what is marked in the viewer, or typed for the image that is shown.
const viewer = document.getElementById("viewer");
let shown = null; // the image in the viewer: { sop_uid, frame, index }
let asking = null; // the fieldset whose button was pressed

function field(region, name) {
  return region.querySelector(`[name="${name}"]`);
}

function name(region, image) {
  field(region, "sop_uid").value = image.sop_uid;
  field(region, "frame").value = image.frame ?? "";
  region.querySelector("[data-region-image]").textContent = `On slice ${image.index + 1} of the series that is shown.`;
}

document.addEventListener("wetread:shown", ({ detail }) => {
  shown = detail;
});

document.addEventListener("click", ({ target }) => {
  const button = target instanceof Element ? target.closest("[data-mark]") : null;
  if (button === null || viewer === null) return;
  asking = button.closest("[data-region]");
  asking.querySelector("[data-region-image]").textContent = "Drag a rectangle on the image. Escape ends it.";
  viewer.dispatchEvent(new CustomEvent("wetread:mark"));
});

document.addEventListener("wetread:marked", ({ detail }) => {
  if (asking === null) return;
  if (detail.box === null) {
    asking.querySelector("[data-region-image]").textContent = "";
  } else {
    for (const side of ["left", "top", "width", "height"]) field(asking, side).value = detail.box[side];
    name(asking, detail);
  }
  asking.querySelector("[data-mark]").focus();
  asking = null;
});

// Numbers that are typed mean the image that is shown while they are.
document.addEventListener("input", ({ target }) => {
  const region = target instanceof Element ? target.closest("[data-region]") : null;
  if (region !== null && shown !== null && field(region, "sop_uid").value === "") name(region, shown);
});
