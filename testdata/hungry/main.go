// Command hungry takes memory, processes or threads on purpose: package
// internal/hungry as a program, for scripts and for trying things by hand.
package main

import (
	"os"

	"github.com/sandrun/sandrun/internal/hungry"
)

func main() { os.Exit(hungry.Run(os.Args[1:])) }
