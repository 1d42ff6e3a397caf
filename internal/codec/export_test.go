package codec

// What the black-box tests need of the inside.
var SortMaps = sortMaps
