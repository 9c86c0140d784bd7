// Boost.JSON without its library: the whole of it is compiled here.
#include <boost/json/src.hpp>
