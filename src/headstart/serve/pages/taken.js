// What was dropped, pasted or chosen, as {file, path}: of folders the pictures in them, at any depth.
const PICTURE = /\.(jpe?g|jfif|png|gif|bmp|webp|avif|tiff?|heic|heif|hif|jp2|j2k|jpx|dcm|dicom|pgm|ppm|pbm|pnm|tga|ico|dds|pcx|sgi|qoi)$/i;
const HIDDEN = /(^|\/)(\.|__MACOSX\/|Thumbs\.db$|desktop\.ini$)/;

const isPicture = (file, path) => !HIDDEN.test(path) && (PICTURE.test(path) || file.type.startsWith("image/"));

// Files of a folder that are no pictures are passed over; what was named by itself is asked about, whatever it is.
export function listed(files) {
  const named = [...files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
  const taken = named.filter(({ file, path }) => !file.webkitRelativePath || isPicture(file, path));
  return { taken, passed: named.length - taken.length };
}

export async function dropped(data) {
  // entries have to be fetched before the first wait: the list is emptied when the event is over
  const entries = [...data.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const taken = [];
  let passed = 0;
  for (const entry of entries.filter(Boolean)) {
    if (entry instanceof File) taken.push({ file: entry, path: entry.name });
    else if (entry.isFile) taken.push(await filed(entry, entry.name));
    else for await (const one of within(entry)) {
      if (one.file === null || isPicture(one.file, one.path)) taken.push(one); else passed++;
    }
  }
  return { taken, passed };
}

async function* within(folder) {
  const reader = folder.createReader(), found = [];
  for (;;) { // a hundred at a time
    const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (!some.length) break;
    found.push(...some);
  }
  found.sort((one, other) => (one.name < other.name ? -1 : 1));
  for (const entry of found) {
    if (entry.isDirectory) yield* within(entry); else yield await filed(entry, entry.fullPath.replace(/^\//, ""));
  }
}

// file: null where it cannot be read, such as a broken link
const filed = (entry, path) => new Promise((resolve) => entry.file((file) => resolve({ file, path }), () => resolve({ file: null, path })));
