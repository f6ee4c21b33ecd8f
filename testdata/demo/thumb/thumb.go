// Package thumb makes small pictures of large ones.
package thumb

import (
	"fmt"
	"image"
	"image/color"
)

// Shrink returns m at one part in factor of its width and height. Each of its
// points is the mean of factor × factor points of m.
func Shrink(m *image.RGBA, factor int) (*image.RGBA, error) {
	w, h := m.Bounds().Dx()/factor, m.Bounds().Dy()/factor
	if factor < 1 || w == 0 || h == 0 {
		return nil, fmt.Errorf("shrink %v by %d: nothing would be left", m.Bounds().Size(), factor)
	}
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	n := factor * factor
	for y := range h {
		for x := range w {
			var r, g, b, a int
			for dy := range factor {
				i := m.PixOffset(m.Rect.Min.X+x*factor, m.Rect.Min.Y+y*factor+dy)
				for row := m.Pix[i : i+4*factor]; len(row) > 0; row = row[4:] {
					r, g, b, a = r+int(row[0]), g+int(row[1]), b+int(row[2]), a+int(row[3])
				}
			}
			out.SetRGBA(x, y, color.RGBA{uint8(r / n), uint8(g / n), uint8(b / n), uint8(a / n)})
		}
	}
	return out, nil
}
