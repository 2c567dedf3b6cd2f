#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_MULTIPART_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_MULTIPART_H_

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace cube::agent::envd {

// What the head of a part says (RFC 7578 section 4.2).
struct PartHead {
  std::string name;                     // of the form's field
  std::optional<std::string> filename;  // with its directories
};

// Takes a body of multipart/form-data (RFC 7578, RFC 2046 section 5.1) apart, in pieces as they
// come. What is in a part is passed on at once; only what may be the beginning of a boundary is
// kept.
class MultipartReader {
 public:
  static constexpr size_t kMaxHead = 16384;

  // Each may refuse what it is given by an error, which ends it all.
  struct Sink {
    std::function<Status(const PartHead& head)> begin;
    std::function<Status(std::string_view bytes)> data;
    std::function<Status()> end;
  };

  // The boundary of a Content-Type; nothing if it is not multipart/form-data, or has none.
  static std::optional<std::string> Boundary(std::string_view content_type);

  MultipartReader(const std::string& boundary, Sink sink);

  // After an error it is not to be called again.
  Status Add(std::string_view bytes);
  // True if the last boundary has come.
  bool complete() const { return state_ == State::kAfter; }

 private:
  enum class State {
    kBefore,    // what comes before the first boundary means nothing
    kBoundary,  // after a boundary: an end of line, or "--" if it was the last
    kHead,
    kData,
    kAfter,  // nor does what comes after the last
  };

  Status AddData(std::string_view* bytes);
  Status AddBoundary(std::string_view* bytes);
  Status AddHead(std::string_view* bytes);
  Status PassOn(std::string_view bytes);

  std::string delimiter_;  // an end of line, "--" and the boundary
  Sink sink_;
  State state_ = State::kBefore;
  std::string kept_;  // the beginning of a delimiter, or a head
};

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_MULTIPART_H_
