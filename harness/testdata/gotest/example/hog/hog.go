package hog
