#include "api/api_database.h"

#include <iterator>

namespace cube::api {
namespace {

// Each step is carried out once; PRAGMA user_version counts them. Never change one that is out.
constexpr const char* kMigrations[] = {
    // `revoked_ms`, `used_ms`: 0 if never.
    "CREATE TABLE keys (id TEXT PRIMARY KEY, name TEXT NOT NULL, hash TEXT NOT NULL UNIQUE,"
    " prefix TEXT NOT NULL, created_ms INTEGER NOT NULL, used_ms INTEGER NOT NULL,"
    " revoked_ms INTEGER NOT NULL) WITHOUT ROWID;"
    // `folder`: the template that a build made; "" before it is ready.
    "CREATE TABLE builds (id TEXT PRIMARY KEY, template TEXT NOT NULL, folder TEXT NOT NULL,"
    " status TEXT NOT NULL, reason TEXT NOT NULL, step TEXT NOT NULL, cpus INTEGER NOT NULL,"
    " memory_mib INTEGER NOT NULL, created_ms INTEGER NOT NULL, finished_ms INTEGER NOT NULL)"
    " WITHOUT ROWID;"
    "CREATE TABLE tags (template TEXT NOT NULL, tag TEXT NOT NULL, build TEXT NOT NULL,"
    " created_ms INTEGER NOT NULL, PRIMARY KEY (template, tag)) WITHOUT ROWID;",
    "CREATE TABLE volumes (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE,"
    " created_ms INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;",
};

}  // namespace

Result<pool::Database> OpenApiDatabase(const std::string& path) {
  constexpr auto kNewest = static_cast<int64_t>(std::size(kMigrations));
  CUBE_ASSIGN(pool::Database database, pool::Database::Open(path));
  int64_t version = 0;
  {
    CUBE_ASSIGN(pool::Statement ask, database.Prepare("PRAGMA user_version"));
    CUBE_ASSIGN(bool row, ask.Step());
    if (row) version = ask.Number(0);
  }
  if (version < 0 || version > kNewest) {
    return Errorf("%s has version %lld, and this program knows versions up to %lld", path.c_str(),
                  static_cast<long long>(version), static_cast<long long>(kNewest));
  }
  for (; version < kNewest; ++version) {
    std::string step =
        "BEGIN IMMEDIATE;" + std::string(kMigrations[version]) +
        Format(";PRAGMA user_version=%lld;COMMIT", static_cast<long long>(version + 1));
    Status done = database.Execute(step.c_str());
    if (done.ok()) continue;
    (void)database.Execute("ROLLBACK");
    return done.error();
  }
  return database;
}

Result<std::string> Setting(pool::Database* database, std::string_view name, std::string fallback) {
  CUBE_ASSIGN(pool::Statement ask, database->Prepare("SELECT value FROM settings WHERE name = ?1"));
  CUBE_ASSIGN(bool row, ask.Bind(1, name).Step());
  if (row) return ask.Text(0);
  CUBE_ASSIGN(pool::Statement put, database->Prepare("INSERT INTO settings VALUES (?1,?2)"));
  CUBE_TRY(put.Bind(1, name).Bind(2, fallback).Run());
  return fallback;
}

}  // namespace cube::api
