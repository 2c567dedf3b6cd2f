#ifndef CUBE_API_API_DATABASE_H_
#define CUBE_API_API_DATABASE_H_

#include <string>
#include <string_view>

#include "base/result.h"
#include "pool/database.h"

namespace cube::api {

// Opens or makes the endpoint's own SQLite file: keys, names of templates, builds, volumes. One of
// an older version is brought up to date, a newer one refused.
Result<pool::Database> OpenApiDatabase(const std::string& path);

// What is kept under that name; `fallback`, which is kept from then on, if there was nothing.
Result<std::string> Setting(pool::Database* database, std::string_view name, std::string fallback);

}  // namespace cube::api

#endif  // CUBE_API_API_DATABASE_H_
