#include "pool/jail/collect.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/byte_io.h"
#include "base/unique_fd.h"
#include "pool/jail/place.h"
#include "snapshot/manifest.h"
#include "snapshot/publish.h"

namespace cube::pool {
namespace {

namespace fs = std::filesystem;

Result<snapshot::Manifest> ReadManifest(const std::string& written) {
  CUBE_ASSIGN(UniqueFd folder, OpenNoLinks(written, O_RDONLY | O_DIRECTORY));
  CUBE_ASSIGN(UniqueFd file, OpenNoLinks(written + "/manifest.json", O_RDONLY | O_NONBLOCK));
  CUBE_ASSIGN(uint64_t size, RegularFileSize(file.get(), written.c_str()));
  if (size > snapshot::Manifest::kMaxSize) {
    return Errorf("%s: a manifest of %llu bytes", written.c_str(),
                  static_cast<unsigned long long>(size));
  }
  // From here on nobody else can open it for writing, and nobody has it open so.
  if (fchown(folder.get(), 0, 0) < 0 || fchown(file.get(), 0, 0) < 0) {
    return ErrnoError("%s", written.c_str());
  }
  if (fcntl(file.get(), F_SETLEASE, F_RDLCK) < 0) {
    return Errorf("%s: its manifest is still being written", written.c_str());
  }
  fcntl(file.get(), F_SETLEASE, F_UNLCK);
  std::string text(size, '\0');
  CUBE_TRY(
      ReadExactAt(file.get(), {reinterpret_cast<uint8_t*>(text.data()), size}, 0, written.c_str()));
  return snapshot::Manifest::Parse(text);
}

Status CheckAgainst(const snapshot::Manifest& manifest, const std::string& written,
                    const std::string& base) {
  if (!manifest.parent_path.empty() &&
      (fs::path(written) / manifest.parent_path).lexically_normal() !=
          fs::path(base).lexically_normal()) {
    return Errorf("%s builds on %s, its machine on %s", written.c_str(),
                  manifest.parent_path.c_str(), base.c_str());
  }
  CUBE_ASSIGN(snapshot::Manifest of_base, snapshot::Manifest::Load(base));
  auto known = [&](const snapshot::OutsideFile& file) {
    return std::any_of(of_base.hardware.disks.begin(), of_base.hardware.disks.end(),
                       [&](const snapshot::DiskHardware& disk) {
                         return std::find(disk.files.begin(), disk.files.end(), file) !=
                                disk.files.end();
                       });
  };
  for (const snapshot::DiskHardware& disk : manifest.hardware.disks) {
    for (const snapshot::OutsideFile& file : disk.files) {
      if (!known(file)) return Errorf("%s has a disk of %s", written.c_str(), file.path.c_str());
    }
  }
  if (manifest.cold) return Errorf("%s: its memory is not in it", written.c_str());
  return OkStatus();
}

}  // namespace

Status CollectSnapshot(const std::string& box, const std::string& path, const std::string& base) {
  const std::string written = box + "/" + std::string(fs::path(path).filename());
  CUBE_ASSIGN(snapshot::Manifest manifest, ReadManifest(written));
  CUBE_TRY(CheckAgainst(manifest, written, base));
  if (rename(written.c_str(), path.c_str()) < 0) return ErrnoError("taking %s", written.c_str());
  return snapshot::SyncFolder(snapshot::FolderOf(path));
}

}  // namespace cube::pool
