// The program that must not run: says so where the runner outside can read it.
#include <unistd.h>

int main(void) {
  const ssize_t ignored = write(1, "FORBIDDEN RAN\n", 14);
  (void)ignored;
  return 66;
}
