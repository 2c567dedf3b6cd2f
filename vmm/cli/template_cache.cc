#include "vmm/cli/template_cache.h"

#include <sys/stat.h>
#include <xxhash.h>

#include <cstdlib>
#include <filesystem>

#include "vmm/cli/machine_manifest.h"

namespace cube::vmm {
namespace {

// Changes when clones of an older one would not do: what the guest finds in its first seconds.
constexpr int kTemplateVersion = 1;

// A file by what tells one content from another without reading it.
std::string FileKey(const std::string& path) {
  struct stat info;
  if (path.empty() || stat(path.c_str(), &info) < 0) return "-\n";
  return Format("%llu %llu %lld %lld.%09ld\n", static_cast<unsigned long long>(info.st_dev),
                static_cast<unsigned long long>(info.st_ino), static_cast<long long>(info.st_size),
                static_cast<long long>(info.st_mtim.tv_sec), info.st_mtim.tv_nsec);
}

}  // namespace

std::string CubeHome() {
  const char* home = getenv("CUBE_HOME");
  return home != nullptr && *home != '\0' ? home : "/var/lib/cube";
}

std::string ControlPath(const std::string& id) { return CubeHome() + "/run/" + id + ".sock"; }

std::string LogPath(const std::string& id) { return CubeHome() + "/run/" + id + ".log"; }

TemplateCache::TemplateCache(const RunOptions& options, Ring0Mode ring0) {
  if (options.boot || !options.profile.empty() || !options.devices.Plain()) return;
  std::string key = Format("%d %s %llu %u\n%s\n", kTemplateVersion, Ring0Name(ring0),
                           static_cast<unsigned long long>(options.memory_mib), options.cpus,
                           options.append.c_str());
  key += FileKey(options.kernel) + FileKey(options.initrd) + FileKey("/proc/self/exe");
  XXH128_hash_t hash = XXH3_128bits(key.data(), key.size());
  path_ = CubeHome() + Format("/templates/run-%016llx%016llx",
                              static_cast<unsigned long long>(hash.high64),
                              static_cast<unsigned long long>(hash.low64));
}

std::optional<snapshot::Snapshot> TemplateCache::Find() const {
  struct stat info;
  if (path_.empty() || stat(path_.c_str(), &info) < 0) return std::nullopt;
  auto found = snapshot::Snapshot::Open(path_);
  if (found.ok()) return std::move(*found);
  fprintf(stderr, "cube-vmm: making the template anew: %s\n", found.error().message().c_str());
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
  return std::nullopt;
}

Status TemplateCache::Build(const Kvm& kvm, const MachineConfig& config, Machine* machine) const {
  CUBE_ASSIGN(MachineState state, machine->Save(kvm));
  std::error_code failed;
  std::filesystem::create_directories(CubeHome() + "/templates", failed);
  if (failed) return Errorf("%s/templates: %s", CubeHome().c_str(), failed.message().c_str());
  CUBE_ASSIGN(snapshot::SnapshotWriter writer,
              snapshot::SnapshotWriter::Create(path_, DescribeMachine(config, *machine)));
  CUBE_TRY(writer.WriteBase(state, machine->memory()));
  CUBE_ASSIGN(std::string id, writer.Publish(false));
  return OkStatus();
}

}  // namespace cube::vmm
