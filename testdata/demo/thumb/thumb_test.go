package thumb

import (
	"image"
	"image/color"
	"testing"
)

// A picture of 3,000 × 2,000 points: 24 MB.
func TestShrink(t *testing.T) {
	m := image.NewRGBA(image.Rect(0, 0, 3000, 2000))
	for i := range m.Pix {
		m.Pix[i] = 255
		if i/4%2 == 0 { // every other point is black
			m.Pix[i] = 0
		}
	}
	got, err := Shrink(m, 10)
	if err != nil {
		t.Fatal(err)
	}
	if size := got.Bounds().Size(); size != image.Pt(300, 200) {
		t.Errorf("size %v, want 300 × 200", size)
	}
	grey := color.RGBA{127, 127, 127, 127}
	for y := range 200 {
		for x := range 300 {
			if c := got.RGBAAt(x, y); c != grey {
				t.Fatalf("point %d, %d is %v, want %v", x, y, c, grey)
			}
		}
	}
}

func TestTooSmall(t *testing.T) {
	if _, err := Shrink(image.NewRGBA(image.Rect(0, 0, 5, 5)), 6); err == nil {
		t.Error("shrunk to nothing without an error")
	}
}
