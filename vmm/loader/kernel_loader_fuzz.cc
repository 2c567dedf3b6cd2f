#include <sys/stat.h>

#include <iterator>
#include <cstdlib>
#include <string>
#include <vector>

#include "vmm/loader/kernel_loader.h"
#include "vmm/loader/test_images.h"

namespace {

using namespace cube::vmm;
using testing::Image;

// So little that a run is cheap, so much that every branch can be reached.
constexpr uint64_t kMemory = 32 * kMiB;
constexpr uint64_t kUnpackedLimit = 4 * kMiB;

}  // namespace

// Starts from one valid image of every kind, made here so that no seed goes stale.
extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  const char* folder = getenv("TEST_TMPDIR");
  if (folder == nullptr) return 0;
  static std::string corpus = std::string(folder) + "/corpus";
  if (mkdir(corpus.c_str(), 0700) != 0) abort();
  Image vmlinux = testing::MakeVmlinux();
  Image packed[] = {testing::WithLength(testing::PackLz4(vmlinux), vmlinux),
                    testing::PackGzip(vmlinux), testing::PackZstd(vmlinux),
                    testing::PackXz(vmlinux)};
  testing::WriteTempFile("corpus/vmlinux", vmlinux);
  for (size_t i = 0; i < std::size(packed); ++i) {
    testing::WriteTempFile("corpus/bzImage" + std::to_string(i), testing::MakeBzImage(packed[i]));
  }
  static std::vector<char*> arguments(*argv, *argv + *argc);
  arguments.push_back(corpus.data());
  arguments.push_back(nullptr);
  *argc = static_cast<int>(arguments.size()) - 1;
  *argv = arguments.data();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const GuestMemory memory = GuestMemory::Create(kMemory).value();
  auto kernel = LoadKernelImage({data, size}, memory, kUnpackedLimit);
  if (!kernel.ok()) {
    if (kernel.error().message().empty()) abort();
    return 0;
  }
  // What a success promises.
  if (kernel->start < kHighMemoryStart || kernel->end > memory.low_ram_end() ||
      kernel->entry < kernel->start || kernel->entry >= kernel->end) {
    abort();
  }
  return 0;
}
