#include "pool/database.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/unique_fd.h"

namespace cube::pool {

Statement& Statement::Bind(int parameter, std::string_view text) {
  int result = sqlite3_bind_text64(statement_.get(), parameter, text.data(), text.size(),
                                   SQLITE_TRANSIENT, SQLITE_UTF8);
  if (result != SQLITE_OK) failed_ = result;
  return *this;
}

Statement& Statement::Bind(int parameter, int64_t number) {
  int result = sqlite3_bind_int64(statement_.get(), parameter, number);
  if (result != SQLITE_OK) failed_ = result;
  return *this;
}

Error Statement::Failure(const char* doing) {
  Error error = Errorf("the store: %s: %s", doing, sqlite3_errmsg(database_));
  sqlite3_reset(statement_.get());
  failed_ = SQLITE_OK;
  return error;
}

Result<bool> Statement::Step() {
  if (failed_ != SQLITE_OK) return Failure("a parameter");
  int result = sqlite3_step(statement_.get());
  if (result == SQLITE_ROW) return true;
  if (result != SQLITE_DONE) return Failure(sqlite3_sql(statement_.get()));
  sqlite3_reset(statement_.get());
  return false;
}

Status Statement::Run() {
  CUBE_ASSIGN(bool row, Step());
  if (row) sqlite3_reset(statement_.get());
  return OkStatus();
}

std::string Statement::Text(int column) const {
  const unsigned char* text = sqlite3_column_text(statement_.get(), column);
  if (text == nullptr) return "";
  return std::string(reinterpret_cast<const char*>(text),
                     static_cast<size_t>(sqlite3_column_bytes(statement_.get(), column)));
}

int64_t Statement::Number(int column) const {
  return sqlite3_column_int64(statement_.get(), column);
}

Result<Database> Database::Open(const std::string& path) {
  // SQLite gives its other files the mode of this one. They hold access tokens.
  CUBE_ASSIGN(UniqueFd file, OpenFile(path, O_RDWR | O_CREAT, 0600));
  if (fchmod(file.get(), 0600) < 0) return ErrnoError("%s", path.c_str());
  sqlite3* raw = nullptr;
  int result = sqlite3_open_v2(path.c_str(), &raw, SQLITE_OPEN_READWRITE, nullptr);
  Database database(raw);
  if (result != SQLITE_OK) return Errorf("%s: %s", path.c_str(), sqlite3_errstr(result));
  sqlite3_extended_result_codes(raw, 1);
  sqlite3_busy_timeout(raw, 2000);
  CUBE_TRY(database.Execute("PRAGMA journal_mode=WAL"));
  CUBE_TRY(database.Execute("PRAGMA foreign_keys=ON"));
  return database;
}

Result<Statement> Database::Prepare(const char* sql) {
  sqlite3_stmt* statement = nullptr;
  int result =
      sqlite3_prepare_v3(database_.get(), sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  if (result != SQLITE_OK) {
    return Errorf("the store: %s: %s", sql, sqlite3_errmsg(database_.get()));
  }
  return Statement(database_.get(), statement);
}

Status Database::Execute(const char* sql) {
  char* message = nullptr;
  if (sqlite3_exec(database_.get(), sql, nullptr, nullptr, &message) == SQLITE_OK) {
    return OkStatus();
  }
  Error error = Errorf("the store: %s: %s", sql, message != nullptr ? message : "failed");
  sqlite3_free(message);
  return error;
}

}  // namespace cube::pool
