#ifndef CUBE_API_PAGE_H_
#define CUBE_API_PAGE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "api/router.h"

namespace cube::api {

// Which part of a list a client wants: from behind an item, at most so many. Items are in the order
// of a time and then of an id, so that one that goes or comes meanwhile shifts nothing.
class Page {
 public:
  static constexpr int64_t kMost = 100;

  // Of "limit" and "nextToken".
  static pool::Outcome<Page> Of(const Call& call);
  // Names an item, the last of a page.
  static std::string Token(int64_t time_ms, const std::string& id);

  size_t limit() const { return limit_; }
  // Whether an item comes behind that one.
  bool IsPast(int64_t time_ms, const std::string& id, bool ascending) const;

 private:
  size_t limit_ = kMost;
  std::optional<std::pair<int64_t, std::string>> last_;
};

}  // namespace cube::api

#endif  // CUBE_API_PAGE_H_
