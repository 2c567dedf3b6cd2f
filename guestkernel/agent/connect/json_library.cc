// Boost.JSON as a part of this program, so that it is built, and stripped, as the rest of it. The
// only file that has to be compiled with exceptions: their handlers are in its functions, though
// nothing throws.

#include <boost/json/src.hpp>
