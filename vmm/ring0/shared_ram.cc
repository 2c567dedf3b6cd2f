#include "vmm/ring0/shared_ram.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "vmm/memory_map.h"

namespace cube::vmm::ring0 {
namespace {

SharedRam* watching = nullptr;
// Of /proc/self/pagemap (Documentation/admin-guide/mm/pagemap.rst).
constexpr uint64_t kPresent = uint64_t{1} << 63;
constexpr uint64_t kSwapped = uint64_t{1} << 62;
constexpr uint64_t kOfFile = uint64_t{1} << 61;

bool IsZero(const uint8_t* page) {
  return page[0] == 0 && memcmp(page, page + 1, kPageSize - 1) == 0;
}

}  // namespace

SharedRam::SharedRam(std::span<uint8_t> ram, UniqueFd file, UniqueFd pagemap, Mapping view,
                     Mapping saved)
    : ram_(ram),
      file_(std::move(file)),
      pagemap_(std::move(pagemap)),
      view_(std::move(view)),
      saved_(std::move(saved)) {
  // The handler must not allocate.
  touched_.reserve(ram.size() / kPageSize);
}

Result<std::unique_ptr<SharedRam>> SharedRam::Create(std::span<uint8_t> ram) {
  UniqueFd file(memfd_create("lockstep", MFD_CLOEXEC));
  if (!file.valid() || ftruncate(file.get(), static_cast<off_t>(ram.size())) < 0) {
    return ErrnoError("a file of %zu bytes", ram.size());
  }
  for (size_t at = 0; at < ram.size(); at += kPageSize) {
    if (IsZero(ram.data() + at)) continue;
    if (pwrite(file.get(), ram.data() + at, kPageSize, static_cast<off_t>(at)) !=
        static_cast<ssize_t>(kPageSize)) {
      return ErrnoError("copying the guest's RAM");
    }
  }
  CUBE_ASSIGN(UniqueFd pagemap, OpenFile("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  CUBE_ASSIGN(Mapping view,
              Mapping::Map(ram.size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE,
                           file.get(), 0, "the second view of the guest's RAM"));
  CUBE_ASSIGN(Mapping saved, Mapping::Map(ram.size(), PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0,
                                          "pages as they were"));
  if (mmap(ram.data(), ram.size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file.get(), 0) ==
      MAP_FAILED) {
    return ErrnoError("mapping the guest's RAM anew");
  }
  std::unique_ptr<SharedRam> shared(
      new SharedRam(ram, std::move(file), std::move(pagemap), std::move(view), std::move(saved)));
  watching = shared.get();
  struct sigaction action = {};
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  action.sa_sigaction = [](int, siginfo_t* info, void*) {
    if (watching != nullptr && watching->Open(info->si_addr)) return;
    signal(SIGSEGV, SIG_DFL);  // the access is made again, and ends the process
  };
  if (sigaction(SIGSEGV, &action, nullptr) < 0) return ErrnoError("sigaction");
  return shared;
}

SharedRam::~SharedRam() {
  signal(SIGSEGV, SIG_DFL);
  watching = nullptr;
}

// In the signal handler, of any thread.
bool SharedRam::Open(const void* address) {
  auto offset = static_cast<size_t>(static_cast<const uint8_t*>(address) - ram_.data());
  if (offset >= ram_.size()) return false;
  uint64_t page = offset / kPageSize;
  uint8_t* bytes = ram_.data() + page * kPageSize;
  memcpy(saved_.data() + page * kPageSize, bytes, kPageSize);
  touched_.push_back(page);
  return mprotect(bytes, kPageSize, PROT_READ | PROT_WRITE) == 0;
}

void SharedRam::Watch() {
  touched_.clear();
  if (mprotect(ram_.data(), ram_.size(), PROT_READ) < 0) abort();
}

void SharedRam::Unwatch() {
  if (mprotect(ram_.data(), ram_.size(), PROT_READ | PROT_WRITE) < 0) abort();
}

void SharedRam::Rewind() {
  // The view's own pages go; what it then shows is the file's.
  if (madvise(view_.data(), view_.size(), MADV_DONTNEED) < 0) abort();
  for (uint64_t page : touched_) {
    memcpy(view_.data() + page * kPageSize, saved_.data() + page * kPageSize, kPageSize);
  }
}

Result<std::vector<uint64_t>> SharedRam::Written() const {
  std::vector<uint64_t> entries(ram_.size() / kPageSize);
  size_t size = entries.size() * sizeof(uint64_t);
  auto start =
      static_cast<off_t>(reinterpret_cast<uintptr_t>(view_.data()) / kPageSize * sizeof(uint64_t));
  if (pread(pagemap_.get(), entries.data(), size, start) != static_cast<ssize_t>(size)) {
    return ErrnoError("reading /proc/self/pagemap");
  }
  // Rewind() has written what the engine wrote.
  std::vector<uint64_t> pages;
  for (uint64_t page = 0; page < entries.size(); ++page) {
    uint64_t entry = entries[page];
    if ((entry & kSwapped) != 0 || ((entry & kPresent) != 0 && (entry & kOfFile) == 0)) {
      pages.push_back(page);
    }
  }
  return pages;
}

}  // namespace cube::vmm::ring0
