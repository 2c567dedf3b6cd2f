#include "vmm/cli/template_cache.h"

#include <sys/stat.h>
#include <xxhash.h>

#include <filesystem>

#include "snapshot/page_scan.h"
#include "vmm/cli/machine_disks.h"
#include "vmm/cli/machine_manifest.h"

namespace cube::vmm {
namespace {

// Changes when clones of an older one would not do: what the guest finds in its first seconds.
constexpr int kTemplateVersion = 2;

}  // namespace

TemplateCache::TemplateCache(const RunOptions& options, Ring0Mode ring0) {
  if (options.boot || !options.profile.empty()) return;
  std::optional<std::string> devices = TemplateKey(options.devices);
  if (!devices) return;
  std::string key = Format("%d %s %llu %u\n%s\n", kTemplateVersion, Ring0Name(ring0),
                           static_cast<unsigned long long>(options.memory_mib), options.cpus,
                           options.append.c_str());
  key += FileKey(options.kernel) + FileKey(options.initrd) + FileKey("/proc/self/exe") + *devices;
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

Status TemplateCache::Build(const Kvm& kvm, const MachineConfig& config,
                            const snapshot::Hardware& hardware, const snapshot::Defaults& defaults,
                            Machine* machine, bool durable) const {
  CUBE_ASSIGN(MachineState state, machine->Save(kvm));
  std::error_code failed;
  std::filesystem::create_directories(CubeHome() + "/templates", failed);
  if (failed) return Errorf("%s/templates: %s", CubeHome().c_str(), failed.message().c_str());
  CUBE_ASSIGN(snapshot::SnapshotWriter writer,
              snapshot::SnapshotWriter::Create(
                  path_, DescribeMachine(config, hardware, *machine, defaults)));
  CUBE_ASSIGN(std::vector<snapshot::PageRun> runs, snapshot::PrivateRuns(machine->memory()));
  CUBE_TRY(writer.WriteBase(state, machine->memory(), runs));
  CUBE_ASSIGN(auto disks, CaptureDisks(machine, hardware, nullptr));
  CUBE_TRY(writer.WriteDisks(disks, nullptr));
  CUBE_ASSIGN(std::string id, writer.Publish(durable));
  return OkStatus();
}

}  // namespace cube::vmm
