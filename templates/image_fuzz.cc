// Configurations, indexes, manifests and layers that may be anything.
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>

#include "base/byte_io.h"
#include "templates/image_config.h"
#include "templates/image_source.h"
#include "templates/layer_reader.h"

namespace {

namespace fs = std::filesystem;
using namespace cube::templates;

std::string Scratch() {
  static const std::string path = [] {
    std::string name = (fs::temp_directory_path() / "image_fuzz.XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) abort();
    return name;
  }();
  return path;
}

void Write(const std::string& path, const uint8_t* data, size_t size) {
  auto file = cube::OpenFile(path, O_WRONLY | O_CREAT | O_TRUNC);
  if (!file.ok() || !cube::WriteAll(file->get(), {data, size}, "input").ok()) abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const uint8_t kind = data[0] % 4;
  ++data;
  --size;
  const std::string top = Scratch();
  const std::string folder = top + "/in";
  fs::create_directories(folder);
  if (kind == 0) {
    (void)ImageConfig::Parse({reinterpret_cast<const char*>(data), size});
    return 0;
  }
  if (kind < 3) {
    const std::string file = folder + (kind == 1 ? "/index.json" : "/manifest.json");
    Write(file, data, size);
    auto tree = Tree::Open(folder);
    if (tree.ok()) (void)ImageSource::Open(std::move(*tree), "");
    unlink(file.c_str());
    return 0;
  }
  const std::string tree_path = top + "/out";
  fs::create_directories(tree_path);
  Write(top + "/tar", data, size);
  auto fd = cube::OpenFile(top + "/tar", O_RDONLY);
  auto tree = Tree::Open(tree_path);
  UnpackBudget budget = {1 << 20, 100};
  if (tree.ok()) (void)UnpackArchive(fd->get(), "tar", ArchiveKind::kLayer, *tree, &budget);
  // Nothing beside the tree, the input and the archive.
  if (std::distance(fs::directory_iterator(top), {}) != 3) abort();
  fs::remove_all(tree_path);
  return 0;
}
