#ifndef CUBE_POOL_STORE_H_
#define CUBE_POOL_STORE_H_

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "pool/database.h"
#include "pool/records.h"

namespace cube::pool {

// What has to survive. A process that dies loses nothing of either kind; a host that loses power
// loses what was kSoft in its last seconds, which is of sandboxes that are gone with it anyway.
enum class Durability {
  kSoft,  // in the host's page cache
  kHard,  // on the disk
};

// The node's memory: sandboxes and snapshots, in SQLite. Every call is one transaction. On one
// thread.
class Store {
 public:
  // Opens or makes the file, and brings one of an older version up to date. A newer one is refused.
  static Result<Store> Open(const std::string& path);

  Status Put(const SandboxRecord& record, Durability durability = Durability::kSoft);
  Status RemoveSandbox(const std::string& id);
  Result<std::vector<SandboxRecord>> Sandboxes();

  Status Put(const SnapshotRecord& record);
  Status RemoveSnapshot(const std::string& id);
  Result<std::vector<SnapshotRecord>> Snapshots();

 private:
  struct Statements;

  explicit Store(Database database) : database_(std::move(database)) {}
  Status Migrate();
  Status Harden(Durability durability);

  Database database_;
  Durability durability_ = Durability::kHard;
  // Declared behind the database: they go before it does.
  std::shared_ptr<Statements> statements_;
};

}  // namespace cube::pool

#endif  // CUBE_POOL_STORE_H_
