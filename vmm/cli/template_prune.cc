#include "vmm/cli/template_prune.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <set>
#include <string>

#include "base/json_writer.h"
#include "base/unique_fd.h"
#include "snapshot/manifest.h"
#include "vmm/cli/command_answer.h"
#include "vmm/cli/cube_home.h"
#include "vmm/cli/template_folder.h"

namespace cube::vmm {
namespace {

namespace fs = std::filesystem;

// Of all disks of all snapshots.
Result<std::set<std::string>> NamedFiles() {
  std::set<std::string> named;
  for (const std::string& kind : VisibleFolders(CubeHome())) {
    for (const std::string& name : VisibleFolders(CubeHome() + "/" + kind)) {
      const std::string folder = CubeHome() + "/" + kind + "/" + name;
      if (access((folder + "/manifest.json").c_str(), F_OK) < 0) continue;
      CUBE_ASSIGN(snapshot::Manifest manifest, snapshot::Manifest::Load(folder));
      for (const auto& disk : manifest.hardware.disks) {
        for (const auto& file : disk.files) named.insert(fs::weakly_canonical(file.path));
      }
    }
  }
  return named;
}

}  // namespace

Result<Pruned> PruneBuilds() {
  const std::string builds = CubeHome() + "/builds";
  Pruned pruned;
  // Builds hold it shared (templates/build_folder.h).
  UniqueFd lock(open((builds + "/locks/.all").c_str(), O_RDWR | O_CLOEXEC));
  if (!lock.valid() && errno == ENOENT) return pruned;
  if (!lock.valid()) return ErrnoError("%s/locks/.all", builds.c_str());
  if (flock(lock.get(), LOCK_EX | LOCK_NB) < 0) return Errorf("a template is being built");
  CUBE_ASSIGN(std::set<std::string> named, NamedFiles());
  for (const char* kind : {"/images", "/layers"}) {
    std::error_code failed;
    for (const auto& entry : fs::directory_iterator(builds + kind, failed)) {
      fs::path owner = entry.path();
      // What an image says of itself goes with it.
      if (owner.extension() == ".json") owner.replace_extension(".ext4");
      if (named.contains(fs::weakly_canonical(owner))) continue;
      struct stat info;
      if (lstat(entry.path().c_str(), &info) < 0 || unlink(entry.path().c_str()) < 0) {
        return ErrnoError("cannot remove %s", entry.path().c_str());
      }
      ++pruned.files;
      pruned.bytes += static_cast<uint64_t>(info.st_blocks) * 512;
    }
  }
  return pruned;
}

int TemplatePruneCommand(bool json) {
  auto pruned = PruneBuilds();
  if (!pruned.ok()) return AnswerError(pruned.error(), json);
  if (json) {
    JsonWriter answer;
    answer.BeginObject().Key("ok").Bool(true).Key("files").Uint(pruned->files);
    answer.Key("bytes").Uint(pruned->bytes).EndObject();
    printf("%s\n", answer.text().c_str());
  } else {
    printf("%llu files, %.1f MiB\n", static_cast<unsigned long long>(pruned->files),
           static_cast<double>(pruned->bytes) / (1 << 20));
  }
  return 0;
}

}  // namespace cube::vmm
