#ifndef CUBE_POOL_RECORDS_H_
#define CUBE_POOL_RECORDS_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "net/policy.h"
#include "pool/config.h"

namespace cube::pool {

// What a sandbox is doing. The states that end in -ing last as long as the request that brought
// them about; the store has them so that a crash in between can be completed or undone.
enum class SandboxState {
  kCreating,
  kRunning,
  kPausing,
  kPaused,
  kResuming,
  kSnapshotting,  // and forking, and being rolled back
  kKilling,
  kDead,
};

// "creating", "running", ...
const char* StateName(SandboxState state);
std::optional<SandboxState> ParseState(const std::string& name);

// What a sandbox may use beyond what its template gives it; 0: no limit of its own.
struct Limits {
  uint64_t memory_mib = 0;  // of the host's memory, guest and VMM
  double cpus = 0;          // processors' worth of time
};

// A volume where a sandbox sees it.
struct VolumeMount {
  std::string volume;  // its id: its folder is HOME/volumes/ID
  std::string name;    // as clients know it
  std::string path;    // in the guest
  bool operator==(const VolumeMount&) const = default;
};

// All that is known about a sandbox, and survives the daemon.
struct SandboxRecord {
  std::string id;
  std::string template_name;
  SandboxState state = SandboxState::kCreating;
  // Its process: the pid is its own only as long as the boot and the start time are the same.
  pid_t pid = 0;
  uint64_t start_ticks = 0;  // field 22 of /proc/PID/stat
  std::string boot_id;
  int64_t created_ms = 0;        // since 1970
  int64_t deadline_ms = 0;       // when its time is over, since 1970; 0: never
  uint32_t timeout_seconds = 0;  // what it last was given, and gets again when it is resumed
  OnTimeout on_timeout = OnTimeout::kKill;
  uint64_t memory_mib = 0;
  uint32_t cpus = 0;
  Limits limits;
  std::string token;
  std::vector<std::string> environment;         // NAME=VALUE
  std::map<std::string, std::string> metadata;  // the client's
  std::string annotation;                       // a front end's own words; forks have them as well
  std::string base;                     // the snapshot's folder that its memory is a mapping of
  std::string snapshot;                 // paused: the folder it is resumed from
  std::string pending;                  // the folder that is being written
  std::string reason;                   // dead: why
  net::Policy network;                  // what it may reach
  std::vector<net::PortMapping> ports;  // of the host's that lead to it while it runs
  std::string vsock;                    // where host clients find the guest's AF_VSOCK ports
  std::vector<VolumeMount> volumes;     // in the order of its devices for them
};

// A snapshot on disk.
struct SnapshotRecord {
  std::string id;       // what clients name it by
  std::string path;     // its folder
  std::string sandbox;  // what it was taken of
  std::string template_name;
  std::string name;    // the client's, or empty
  bool named = false;  // asked for by a client; else it is what a pause left
  int64_t created_ms = 0;
  uint64_t memory_mib = 0;
  uint32_t cpus = 0;
  std::vector<VolumeMount> volumes;  // that are mounted in it
};

}  // namespace cube::pool

#endif  // CUBE_POOL_RECORDS_H_
