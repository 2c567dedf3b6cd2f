// What Boost calls where it would throw. The agent is built without exceptions, gives Boost nothing
// that could make it throw, and takes error codes of it; that is a bug if it is ever reached.

#include <boost/assert/source_location.hpp>
#include <boost/throw_exception.hpp>
#include <cstdlib>
#include <exception>

namespace boost {

void throw_exception(const std::exception&) { abort(); }
void throw_exception(const std::exception&, const boost::source_location&) { abort(); }

}  // namespace boost
