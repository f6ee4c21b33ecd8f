// Package sys is the one door to raw system calls: thin, documented wrappers and
// no policy. Nothing else in this module imports golang.org/x/sys/unix.
package sys
