#ifndef CUBE_POOL_PROGRAM_OUTPUT_H_
#define CUBE_POOL_PROGRAM_OUTPUT_H_

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/json/object.hpp>
#include <memory>
#include <string>

#include "base/unique_fd.h"
#include "pool/async.h"
#include "pool/outcome.h"

namespace cube::pool {

// What a program that has just been started says on stdout and stderr, line by line.
class ProgramOutput {
 public:
  // `name`: of the program, for errors.
  ProgramOutput(asio::io_context& io, UniqueFd output, std::string name);

  // Waits for an object with that member. If the program ends before, or says too little in a
  // minute, the last line of another kind is why.
  Task<Outcome<boost::json::object>> Await(std::string member);

 private:
  asio::io_context& io_;
  std::shared_ptr<asio::posix::stream_descriptor> output_;
  std::string name_;
  std::string received_;
  std::string error_;
};

}  // namespace cube::pool

#endif  // CUBE_POOL_PROGRAM_OUTPUT_H_
