; First sector of a disk that counts how often it was started: adds one to the digit in its second sector, writes that sector back, and says COUNT and the digit to
; COM1. Says LOST where the disk does not take the write. Then it halts.
;
; nasm -f bin -o counter.img counter.asm makes the disk, 64 sectors.

        bits 16
        org 0x7c00
start:  cli
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
        sti
        cld
        mov [drive], dl
        ; COM1: 115200 8N1
        mov dx, 0x3fb
        mov al, 0x80
        out dx, al
        mov dx, 0x3f8
        mov al, 1
        out dx, al
        inc dx
        xor al, al
        out dx, al
        mov dx, 0x3fb
        mov al, 3
        out dx, al
        mov ah, 0x42
        call disk
        inc byte [0x8000]
        mov ax, 0x4300
        call disk
        ; Read again: what is said is what the disk has.
        mov byte [0x8000], '?'
        mov ah, 0x42
        call disk
        mov si, count
        call puts
        mov si, 0x8000
        call puts
        mov si, line
        call puts
halt:   hlt
        jmp halt

; Reads (AH = 42h) or writes (43h) the second sector, at 0x8000.
disk:   mov si, packet
        mov dl, [drive]
        int 0x13
        jc lost
        ret
lost:   mov si, no
        call puts
        jmp halt

puts:   lodsb
        or al, al
        jz .done
        push ax
        mov dx, 0x3fd
.wait:  in al, dx
        test al, 0x20
        jz .wait
        pop ax
        mov dx, 0x3f8
        out dx, al
        jmp puts
.done:  ret

count:  db "COUNT ", 0
line:   db 13, 10, 0
no:     db "LOST", 13, 10, 0
        align 4, db 0
packet: db 16, 0
        dw 1, 0x8000, 0
        dd 1, 0
drive:  db 0
        times 510 - ($ - $$) db 0
        dw 0xaa55

        db "0"
        times 64 * 512 - ($ - $$) db 0
