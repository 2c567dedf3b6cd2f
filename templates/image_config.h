#ifndef CUBE_TEMPLATES_IMAGE_CONFIG_H_
#define CUBE_TEMPLATES_IMAGE_CONFIG_H_

#include <boost/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "snapshot/defaults.h"

namespace cube::templates {

inline constexpr size_t kMaxJson = 4 << 20;

// A JSON object, from text that may be anything.
Result<boost::json::object> ParseObject(std::string_view text);
Result<boost::json::array> ParseArray(std::string_view text);

// A string of an object; "" if it is not there or null. An error if it is something else.
Result<std::string> StringOf(const boost::json::object& object, const char* name);
// A list of strings; none if it is not there or null.
Result<std::vector<std::string>> StringsOf(const boost::json::object& object, const char* name,
                                           size_t limit);

// The configuration of a container image (OCI image specification 1.1, config.md), of what is used
// of it.
struct ImageConfig {
  static constexpr size_t kMaxLayers = 256;

  // `text` may be anything. An image that is not for x86-64 Linux is an error.
  static Result<ImageConfig> Parse(std::string_view text);

  snapshot::Defaults defaults;
  std::vector<std::string> diff_ids;  // digests of the layers, uncompressed
};

}  // namespace cube::templates

#endif  // CUBE_TEMPLATES_IMAGE_CONFIG_H_
