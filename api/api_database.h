#ifndef CUBE_API_API_DATABASE_H_
#define CUBE_API_API_DATABASE_H_

#include <string>

#include "base/result.h"
#include "pool/database.h"

namespace cube::api {

// Opens or makes the endpoint's own SQLite file: keys, names of templates, builds. One of an older
// version is brought up to date, a newer one refused.
Result<pool::Database> OpenApiDatabase(const std::string& path);

}  // namespace cube::api

#endif  // CUBE_API_API_DATABASE_H_
