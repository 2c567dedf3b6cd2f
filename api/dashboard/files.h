#ifndef CUBE_API_DASHBOARD_FILES_H_
#define CUBE_API_DASHBOARD_FILES_H_

#include <span>
#include <string_view>

namespace cube::api {

// A file of the page that cubed shows at /.
struct DashboardFile {
  std::string_view name;  // without a folder
  const char* type;       // its Content-Type
  std::string_view bytes;
};

// All of them. They are in the program, so that nothing else has to be there.
std::span<const DashboardFile> DashboardFiles();

}  // namespace cube::api

#endif  // CUBE_API_DASHBOARD_FILES_H_
