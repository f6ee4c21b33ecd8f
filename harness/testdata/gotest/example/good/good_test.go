package good

import (
	"fmt"
	"testing"
)

func TestQuick(t *testing.T)   { fmt.Print("no newline") }
func TestSkipped(t *testing.T) { t.Skip("not here") }
func TestTable(t *testing.T) {
	for _, name := range []string{"one", "two words", "a/b"} {
		t.Run(name, func(t *testing.T) { fmt.Println("=== not a marker") })
	}
}
func Example() {
	fmt.Println("hello")
	// Output: hello
}
