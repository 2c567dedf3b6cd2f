#include "pool/store.h"

#include <array>
#include <boost/json.hpp>
#include <iterator>

namespace cube::pool {
namespace {

namespace json = boost::json;

// Each step is carried out once; PRAGMA user_version counts them. Never change one that is out.
constexpr const char* kMigrations[] = {
    "CREATE TABLE sandboxes (id TEXT PRIMARY KEY, template TEXT NOT NULL, state TEXT NOT NULL,"
    " pid INTEGER NOT NULL, start_ticks INTEGER NOT NULL, boot_id TEXT NOT NULL,"
    " created_ms INTEGER NOT NULL, deadline_ms INTEGER NOT NULL, timeout_seconds INTEGER NOT NULL,"
    " on_timeout INTEGER NOT NULL, memory_mib INTEGER NOT NULL, cpus INTEGER NOT NULL,"
    " limit_memory_mib INTEGER NOT NULL, limit_millicpus INTEGER NOT NULL, token TEXT NOT NULL,"
    " environment TEXT NOT NULL, metadata TEXT NOT NULL, base TEXT NOT NULL,"
    " snapshot TEXT NOT NULL, pending TEXT NOT NULL, reason TEXT NOT NULL,"
    " vsock TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE snapshots (id TEXT PRIMARY KEY, path TEXT NOT NULL, sandbox TEXT NOT NULL,"
    " template TEXT NOT NULL, name TEXT NOT NULL, named INTEGER NOT NULL,"
    " created_ms INTEGER NOT NULL, memory_mib INTEGER NOT NULL, cpus INTEGER NOT NULL)"
    " WITHOUT ROWID;",
    "ALTER TABLE sandboxes ADD COLUMN annotation TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE sandboxes ADD COLUMN network TEXT NOT NULL DEFAULT '{}'",
    "ALTER TABLE sandboxes ADD COLUMN volumes TEXT NOT NULL DEFAULT '[]';"
    "ALTER TABLE snapshots ADD COLUMN volumes TEXT NOT NULL DEFAULT '[]'",
};

constexpr const char* kPutSandbox =
    "INSERT OR REPLACE INTO sandboxes VALUES"
    " (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21,?22,"
    "?23,?24,?25)";
constexpr const char* kPutSnapshot =
    "INSERT OR REPLACE INTO snapshots VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)";

template <typename Strings>
std::string ToText(const Strings& strings) {
  return json::serialize(json::value_from(strings));
}

// What the store holds was written by this class; a file that someone has edited is an error.
template <typename Strings>
Result<Strings> FromText(const std::string& text, const std::string& id) {
  json::error_code failed;
  json::value value = json::parse(text, failed);
  if (!failed) {
    auto strings = json::try_value_to<Strings>(value);
    if (strings) return std::move(*strings);
  }
  return Errorf("the store: sandbox %s has damaged words: %.100s", id.c_str(), text.c_str());
}

// Each as [ID, NAME, PATH].
std::string VolumesText(const std::vector<VolumeMount>& volumes) {
  std::vector<std::vector<std::string>> all;
  for (const VolumeMount& mount : volumes) all.push_back({mount.volume, mount.name, mount.path});
  return ToText(all);
}

Result<std::vector<VolumeMount>> VolumesOf(const std::string& text, const std::string& id) {
  CUBE_ASSIGN(auto all, FromText<std::vector<std::vector<std::string>>>(text, id));
  std::vector<VolumeMount> volumes;
  for (const std::vector<std::string>& each : all) {
    if (each.size() != 3) return Errorf("the store: sandbox %s has damaged volumes", id.c_str());
    volumes.push_back({each[0], each[1], each[2]});
  }
  return volumes;
}

// A policy and ports as {"allow":[...],"deny":[...],"internet":...,"bytes":N,"packets":N,
// "ports":[[PROTOCOL,HOST-PORT,PORT],...]}.
std::string NetworkText(const SandboxRecord& record) {
  const net::Policy& policy = record.network;
  json::object text;
  text["allow"] = json::value_from(policy.AllowText());
  text["deny"] = json::value_from(policy.DenyText());
  text["internet"] = policy.internet;
  text["bytes"] = policy.bytes_per_second;
  text["packets"] = policy.packets_per_second;
  json::array ports;
  for (const net::PortMapping& port : record.ports) {
    ports.push_back(json::array({port.protocol, port.host_port, port.port}));
  }
  text["ports"] = std::move(ports);
  return json::serialize(text);
}

Status ReadNetwork(const std::string& text, SandboxRecord* record) {
  const std::string& id = record->id;
  json::error_code failed;
  json::value value = json::parse(text, failed);
  const json::object* object = failed ? nullptr : value.if_object();
  if (object == nullptr) return Errorf("the store: sandbox %s has a damaged policy", id.c_str());
  std::vector<std::string> lists[2];
  for (int i = 0; i < 2; ++i) {
    const json::value* list = object->if_contains(i == 0 ? "allow" : "deny");
    auto strings = list == nullptr ? std::vector<std::string>()
                                   : json::try_value_to<std::vector<std::string>>(*list);
    if (!strings) return Errorf("the store: sandbox %s has a damaged policy", id.c_str());
    lists[i] = std::move(*strings);
  }
  const json::value* internet = object->if_contains("internet");
  bool open = internet == nullptr || (internet->is_bool() && internet->get_bool());
  CUBE_ASSIGN(net::Policy policy, net::Policy::Parse(lists[0], lists[1], open));
  for (auto [key, limit] : {std::pair("bytes", &policy.bytes_per_second),
                            std::pair("packets", &policy.packets_per_second)}) {
    const json::value* number = object->if_contains(key);
    if (number == nullptr) continue;
    auto whole = json::try_value_to<uint64_t>(*number);
    if (whole) *limit = *whole;
  }
  record->network = std::move(policy);
  const json::value* ports = object->if_contains("ports");
  if (ports == nullptr) return OkStatus();
  auto known = json::try_value_to<std::vector<std::array<uint16_t, 3>>>(*ports);
  if (!known) return Errorf("the store: sandbox %s has damaged ports", id.c_str());
  for (auto [protocol, host_port, port] : *known) {
    record->ports.push_back({static_cast<uint8_t>(protocol), host_port, port});
  }
  return OkStatus();
}

}  // namespace

struct Store::Statements {
  Statement put_sandbox, remove_sandbox, put_snapshot, remove_snapshot;
};

Result<Store> Store::Open(const std::string& path) {
  CUBE_ASSIGN(Database database, Database::Open(path));
  Store store(std::move(database));
  CUBE_TRY(store.Migrate());
  CUBE_ASSIGN(Statement put_sandbox, store.database_.Prepare(kPutSandbox));
  CUBE_ASSIGN(Statement remove_sandbox,
              store.database_.Prepare("DELETE FROM sandboxes WHERE id = ?1"));
  CUBE_ASSIGN(Statement put_snapshot, store.database_.Prepare(kPutSnapshot));
  CUBE_ASSIGN(Statement remove_snapshot,
              store.database_.Prepare("DELETE FROM snapshots WHERE id = ?1"));
  store.statements_ =
      std::make_shared<Statements>(Statements{std::move(put_sandbox), std::move(remove_sandbox),
                                              std::move(put_snapshot), std::move(remove_snapshot)});
  CUBE_TRY(store.Harden(Durability::kSoft));
  return store;
}

Status Store::Migrate() {
  constexpr auto kNewest = static_cast<int64_t>(std::size(kMigrations));
  int64_t version = 0;
  {
    CUBE_ASSIGN(Statement ask, database_.Prepare("PRAGMA user_version"));
    CUBE_ASSIGN(bool row, ask.Step());
    if (row) version = ask.Number(0);
  }
  if (version < 0 || version > kNewest) {
    return Errorf("the store has version %lld, and this program knows versions up to %lld",
                  static_cast<long long>(version), static_cast<long long>(kNewest));
  }
  for (; version < kNewest; ++version) {
    std::string step =
        "BEGIN IMMEDIATE;" + std::string(kMigrations[version]) +
        Format(";PRAGMA user_version=%lld;COMMIT", static_cast<long long>(version + 1));
    Status done = database_.Execute(step.c_str());
    if (done.ok()) continue;
    (void)database_.Execute("ROLLBACK");
    return done;
  }
  return OkStatus();
}

Status Store::Harden(Durability durability) {
  if (durability == durability_) return OkStatus();
  CUBE_TRY(database_.Execute(durability == Durability::kHard ? "PRAGMA synchronous=FULL"
                                                             : "PRAGMA synchronous=NORMAL"));
  durability_ = durability;
  return OkStatus();
}

Status Store::Put(const SandboxRecord& record, Durability durability) {
  CUBE_TRY(Harden(durability));
  Statement& put = statements_->put_sandbox;
  put.Bind(1, record.id).Bind(2, record.template_name).Bind(3, StateName(record.state));
  put.Bind(4, record.pid).Bind(5, static_cast<int64_t>(record.start_ticks));
  put.Bind(6, record.boot_id).Bind(7, record.created_ms).Bind(8, record.deadline_ms);
  put.Bind(9, record.timeout_seconds).Bind(10, static_cast<int64_t>(record.on_timeout));
  put.Bind(11, static_cast<int64_t>(record.memory_mib)).Bind(12, record.cpus);
  put.Bind(13, static_cast<int64_t>(record.limits.memory_mib));
  put.Bind(14, static_cast<int64_t>(record.limits.cpus * 1000));
  put.Bind(15, record.token).Bind(16, ToText(record.environment));
  put.Bind(17, ToText(record.metadata)).Bind(18, record.base).Bind(19, record.snapshot);
  put.Bind(20, record.pending).Bind(21, record.reason).Bind(22, record.vsock);
  put.Bind(23, record.annotation);
  put.Bind(24, NetworkText(record)).Bind(25, VolumesText(record.volumes));
  return put.Run();
}

Status Store::RemoveSandbox(const std::string& id) {
  CUBE_TRY(Harden(Durability::kSoft));
  return statements_->remove_sandbox.Bind(1, id).Run();
}

Result<std::vector<SandboxRecord>> Store::Sandboxes() {
  CUBE_ASSIGN(Statement all, database_.Prepare("SELECT * FROM sandboxes ORDER BY id"));
  std::vector<SandboxRecord> records;
  for (;;) {
    CUBE_ASSIGN(bool row, all.Step());
    if (!row) return records;
    SandboxRecord record;
    record.id = all.Text(0);
    record.template_name = all.Text(1);
    auto state = ParseState(all.Text(2));
    if (!state) {
      return Errorf("the store: sandbox %s is \"%s\", which is no state", record.id.c_str(),
                    all.Text(2).c_str());
    }
    record.state = *state;
    record.pid = static_cast<pid_t>(all.Number(3));
    record.start_ticks = static_cast<uint64_t>(all.Number(4));
    record.boot_id = all.Text(5);
    record.created_ms = all.Number(6);
    record.deadline_ms = all.Number(7);
    record.timeout_seconds = static_cast<uint32_t>(all.Number(8));
    record.on_timeout = all.Number(9) == 0 ? OnTimeout::kKill : OnTimeout::kPause;
    record.memory_mib = static_cast<uint64_t>(all.Number(10));
    record.cpus = static_cast<uint32_t>(all.Number(11));
    record.limits.memory_mib = static_cast<uint64_t>(all.Number(12));
    record.limits.cpus = static_cast<double>(all.Number(13)) / 1000;
    record.token = all.Text(14);
    CUBE_ASSIGN(record.environment, FromText<std::vector<std::string>>(all.Text(15), record.id));
    CUBE_ASSIGN(record.metadata,
                (FromText<std::map<std::string, std::string>>(all.Text(16), record.id)));
    record.base = all.Text(17);
    record.snapshot = all.Text(18);
    record.pending = all.Text(19);
    record.reason = all.Text(20);
    record.vsock = all.Text(21);
    record.annotation = all.Text(22);
    CUBE_TRY(ReadNetwork(all.Text(23), &record));
    CUBE_ASSIGN(record.volumes, VolumesOf(all.Text(24), record.id));
    records.push_back(std::move(record));
  }
}

Status Store::Put(const SnapshotRecord& record) {
  CUBE_TRY(Harden(Durability::kHard));
  Statement& put = statements_->put_snapshot;
  put.Bind(1, record.id).Bind(2, record.path).Bind(3, record.sandbox);
  put.Bind(4, record.template_name).Bind(5, record.name).Bind(6, record.named ? 1 : 0);
  put.Bind(7, record.created_ms).Bind(8, static_cast<int64_t>(record.memory_mib));
  put.Bind(9, record.cpus).Bind(10, VolumesText(record.volumes));
  return put.Run();
}

Status Store::RemoveSnapshot(const std::string& id) {
  CUBE_TRY(Harden(Durability::kSoft));
  return statements_->remove_snapshot.Bind(1, id).Run();
}

Result<std::vector<SnapshotRecord>> Store::Snapshots() {
  CUBE_ASSIGN(Statement all, database_.Prepare("SELECT * FROM snapshots ORDER BY created_ms, id"));
  std::vector<SnapshotRecord> records;
  for (;;) {
    CUBE_ASSIGN(bool row, all.Step());
    if (!row) return records;
    SnapshotRecord record;
    record.id = all.Text(0);
    record.path = all.Text(1);
    record.sandbox = all.Text(2);
    record.template_name = all.Text(3);
    record.name = all.Text(4);
    record.named = all.Number(5) != 0;
    record.created_ms = all.Number(6);
    record.memory_mib = static_cast<uint64_t>(all.Number(7));
    record.cpus = static_cast<uint32_t>(all.Number(8));
    CUBE_ASSIGN(record.volumes, VolumesOf(all.Text(9), record.id));
    records.push_back(std::move(record));
  }
}

}  // namespace cube::pool
