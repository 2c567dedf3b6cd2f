#include "vmm/loader/kernel_loader.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <utility>

#include "base/byte_io.h"
#include "base/mapping.h"
#include "base/unique_fd.h"
#include "vmm/loader/bzimage.h"
#include "vmm/loader/decompress.h"
#include "vmm/loader/elf_loader.h"
#include "vmm/loader/hex.h"

namespace cube::vmm {
namespace {

Result<LoadedKernel> LoadBzImage(std::span<const uint8_t> file, const GuestMemory& memory,
                                 uint64_t unpacked_limit) {
  CUBE_ASSIGN(BzImage image, ParseBzImage(file));
  CUBE_ASSIGN(DecompressedImage vmlinux, Decompress(image.payload, unpacked_limit));
  CUBE_ASSIGN(LoadedKernel kernel, LoadElf(vmlinux.bytes(), memory));
  kernel.header = image.header;
  return kernel;
}

}  // namespace

Result<LoadedKernel> LoadKernelImage(std::span<const uint8_t> file, const GuestMemory& memory,
                                     uint64_t unpacked_limit) {
  if (file.empty()) return Errorf("the file is empty");
  if (IsElf(file)) return LoadElf(file, memory);
  if (IsBzImage(file)) {
    Result<LoadedKernel> kernel = LoadBzImage(file, memory, unpacked_limit);
    if (!kernel.ok()) return Error(kernel.error()).Wrap("bzImage");
    return kernel;
  }
  return Errorf("neither an ELF vmlinux nor a bzImage (begins with %s)", FirstBytes(file).c_str());
}

Result<LoadedKernel> LoadKernel(const std::string& path, const GuestMemory& memory) {
  const std::string what = "kernel " + path;
  // Non-blocking, so that a FIFO is an error and not a wait for its writer.
  Result<UniqueFd> fd = OpenFile(path, O_RDONLY | O_NONBLOCK);
  if (!fd.ok()) return Error(fd.error()).Wrap("kernel");
  CUBE_ASSIGN(uint64_t size, RegularFileSize(fd->get(), what.c_str()));
  if (size == 0) return Errorf("%s: the file is empty", what.c_str());
  CUBE_ASSIGN(Mapping file,
              Mapping::Map(size, PROT_READ, MAP_PRIVATE, fd->get(), 0, what.c_str()));
  Result<LoadedKernel> kernel = LoadKernelImage(file.span(), memory);
  if (!kernel.ok()) return Error(kernel.error()).Wrap(what);
  return kernel;
}

}  // namespace cube::vmm
