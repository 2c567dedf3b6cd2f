// What of Boost.Asio is compiled once: the others declare BOOST_ASIO_SEPARATE_COMPILATION.
#include <boost/asio/impl/src.hpp>
