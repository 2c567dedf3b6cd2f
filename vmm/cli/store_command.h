#ifndef CUBE_VMM_CLI_STORE_COMMAND_H_
#define CUBE_VMM_CLI_STORE_COMMAND_H_

#include <string>

namespace cube::vmm {

// `cube-vmm store ACTION [ARGUMENT]` and `cube-vmm flatten`, as given.
struct StoreOptions {
  std::string action;    // "add", "rm", "stats", "gc", "verify"; "flatten"
  std::string argument;  // add, flatten: a snapshot's folder; rm: an id
  std::string out;       // flatten: the folder to make
  bool json = false;
};

// The page store of this node: $CUBE_HOME/store.
std::string StoreRoot();

// The folder of the snapshot that is called `name`: a path, or the id of one in the page store.
std::string SnapshotFolder(const std::string& name);

// The exit status: 1 if verify has found damage, kStatusVmmError if something went wrong.
int StoreCommand(const StoreOptions& options);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_STORE_COMMAND_H_
