#ifndef CUBE_SNAPSHOT_MANIFEST_H_
#define CUBE_SNAPSHOT_MANIFEST_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "snapshot/defaults.h"
#include "snapshot/hardware.h"

namespace cube::snapshot {

// manifest.json: what a snapshot is, by which it is judged before anything else of it is read.
struct Manifest {
  static constexpr uint64_t kVersion = 1;
  static constexpr size_t kMaxSize = 1 << 20;  // of the file

  std::string id;             // of this snapshot: 32 hexadecimal digits
  std::string parent;         // id of the snapshot that a diff builds on; empty for a base
  std::string parent_path;    // folder of the parent, as seen from this one or absolute; for a diff
  std::string created;        // RFC 3339, UTC
  uint64_t memory_bytes = 0;  // RAM of the guest
  uint32_t cpus = 0;
  std::string ring0;                 // "native", "engine" or "emulator": what ran ring 0
  std::string kernel;                // the guest kernel's command line, for people
  std::vector<std::string> devices;  // names, in the order the guest knows them
  Hardware hardware;                 // those devices
  Defaults defaults;                 // of programs in clones; not in the file if there are none
  uint64_t state_bytes = 0;
  std::string state_xxh3;  // xxh3-64 of the file `state`
  bool cold = false;  // its memory is in a page store: the file is `memory.cold` (ColdIndex)
  uint64_t memory_file_bytes = 0;
  std::string memory_xxh3;  // xxh3-128 of the file `memory`'s data (MemoryFile), or all of the other

  std::string ToJson() const;
  // `text` may be anything, and must be as ToJson() wrote it: it ends with a checksum of itself.
  // The error says what is missing or wrong.
  static Result<Manifest> Parse(std::string_view text);
  // That of the snapshot in `folder`, of which nothing else is looked at. Errors name the file.
  static Result<Manifest> Load(const std::string& folder);
};

// A new id: 128 random bits in hexadecimal.
Result<std::string> NewSnapshotId();

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_MANIFEST_H_
