
function wire(root) {
  const pictures = dataOf(root, "pictures-data") ?? [];
  for (const each of WIRING) each(root, pictures);
}

wire(document);
