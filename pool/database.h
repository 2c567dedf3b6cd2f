#ifndef CUBE_POOL_DATABASE_H_
#define CUBE_POOL_DATABASE_H_

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace cube::pool {

// A prepared statement of an SQLite database. Columns and parameters are counted from where SQLite
// does: parameters from 1, columns from 0.
class Statement {
 public:
  Statement& Bind(int parameter, std::string_view text);
  Statement& Bind(int parameter, int64_t number);
  // True: there is a row. False: it is done, and can be bound again.
  Result<bool> Step();
  // For what gives no rows.
  Status Run();
  std::string Text(int column) const;
  int64_t Number(int column) const;

 private:
  friend class Database;
  Statement(sqlite3* database, sqlite3_stmt* statement)
      : database_(database), statement_(statement, sqlite3_finalize) {}

  Error Failure(const char* doing);

  sqlite3* database_;
  std::unique_ptr<sqlite3_stmt, decltype(&sqlite3_finalize)> statement_;
  int failed_ = SQLITE_OK;  // of a Bind()
};

// An SQLite database in a file of mode 0600, in WAL mode. On one thread.
class Database {
 public:
  static Result<Database> Open(const std::string& path);

  Result<Statement> Prepare(const char* sql);
  // Statements without parameters.
  Status Execute(const char* sql);

 private:
  explicit Database(sqlite3* database) : database_(database, sqlite3_close) {}

  std::unique_ptr<sqlite3, decltype(&sqlite3_close)> database_;
};

}  // namespace cube::pool

#endif  // CUBE_POOL_DATABASE_H_
