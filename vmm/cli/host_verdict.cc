#include "vmm/cli/host_verdict.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "base/unique_fd.h"
#include "vmm/assist/host_probe.h"
#include "vmm/cli/cube_home.h"

namespace cube::vmm {
namespace {

constexpr size_t kMaxSize = 1024;

// At most kMaxSize bytes; empty if there are none, or it cannot be read.
std::string ReadSmall(const char* path) {
  auto fd = OpenFile(path, O_RDONLY | O_CLOEXEC);
  if (!fd.ok()) return "";
  std::array<char, kMaxSize> text;
  ssize_t size = read(fd->get(), text.data(), text.size());
  return size > 0 ? std::string(text.data(), static_cast<size_t>(size)) : "";
}

std::string Line(const std::string& key, bool emulated) {
  return key + (emulated ? " emulated\n" : " native\n");
}

}  // namespace

HostVerdict::HostVerdict(std::string path, const std::string& device) : path_(std::move(path)) {
  std::string boot = ReadSmall("/proc/sys/kernel/random/boot_id");
  struct stat program, kvm;
  if (boot.size() < 36 || stat("/proc/self/exe", &program) < 0 || stat(device.c_str(), &kvm) < 0) {
    return;
  }
  key_ = Format("%.36s %llx:%llx:%llx:%llx.%lx %llx:%llx:%llx.%lx", boot.c_str(),
                static_cast<unsigned long long>(program.st_dev),
                static_cast<unsigned long long>(program.st_ino),
                static_cast<unsigned long long>(program.st_size),
                static_cast<unsigned long long>(program.st_mtim.tv_sec), program.st_mtim.tv_nsec,
                static_cast<unsigned long long>(kvm.st_rdev),
                static_cast<unsigned long long>(kvm.st_ino),
                static_cast<unsigned long long>(kvm.st_ctim.tv_sec), kvm.st_ctim.tv_nsec);
}

std::string HostVerdict::DefaultPath() { return CubeHome() + "/cache/host-verdict"; }

std::optional<bool> HostVerdict::Load() const {
  if (key_.empty()) return std::nullopt;
  std::string text = ReadSmall(path_.c_str());
  for (bool emulated : {false, true}) {
    if (text == Line(key_, emulated)) return emulated;
  }
  return std::nullopt;
}

void HostVerdict::Store(bool emulated) const {
  if (key_.empty()) return;
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), error);
  std::string temporary = Format("%s.%d", path_.c_str(), getpid());
  auto fd = OpenFile(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (!fd.ok()) return;
  std::string text = Line(key_, emulated);
  bool written = write(fd->get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (!written || rename(temporary.c_str(), path_.c_str()) < 0) unlink(temporary.c_str());
}

Result<bool> EmulatesRing0(const Kvm& kvm, const std::string& device) {
  // Whoever has started this process may know; in a jail nothing can be remembered.
  const char* told = getenv("CUBE_RING0");
  if (told != nullptr && strcmp(told, "emulated") == 0) return true;
  if (told != nullptr && strcmp(told, "native") == 0) return false;
  HostVerdict verdict(HostVerdict::DefaultPath(), device);
  if (std::optional<bool> known = verdict.Load()) return *known;
  CUBE_ASSIGN(HostProbe probe, ProbeHost(kvm));
  verdict.Store(probe.emulated_ring0());
  return probe.emulated_ring0();
}

}  // namespace cube::vmm
